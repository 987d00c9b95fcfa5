"""What runs on one machine: Ray, a Prefect server, a Prefect worker."""

from holdtrue.stack._processes import free_ports, port_is_free
from holdtrue.stack._ray import check_answers
from holdtrue.stack._resources import check_trial_fits
from holdtrue.stack._session import ray_session
from holdtrue.stack._stack import Stack
from holdtrue.stack._state import ProcessInfo, StackState

__all__ = [
    "ProcessInfo",
    "Stack",
    "StackState",
    "check_answers",
    "check_trial_fits",
    "free_ports",
    "port_is_free",
    "ray_session",
]
