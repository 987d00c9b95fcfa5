"""Tells people what happens while nobody looks: ``notify`` of a declaration."""

from holdtrue.notifications._send import check_addresses, send_test
from holdtrue.notifications._tell import (
    Undelivered,
    notified_backup,
    notified_batch,
    notified_look,
    notified_training,
    notify,
    notify_if_late,
    undelivered,
    warn_of_unset,
)

__all__ = [
    "Undelivered",
    "check_addresses",
    "notified_backup",
    "notified_batch",
    "notified_look",
    "notified_training",
    "notify",
    "notify_if_late",
    "send_test",
    "undelivered",
    "warn_of_unset",
]
