"""The Ray Serve application: scoring and capture, and how it is deployed and called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdtrue.lazy import names_of

if TYPE_CHECKING:
    from holdtrue.serving._deploy import check_place, deploy, start_serve, undeploy
    from holdtrue.serving._endpoint import Endpoint
    from holdtrue.serving._fold import (
        Folded,
        capture_places,
        captured_batches,
        fold_in,
        read_captured,
        some_answers,
    )
    from holdtrue.serving._slate import Arm, Limits, Slate
    from holdtrue.serving._slates import slate_of
    from holdtrue.serving._statistics import ArmStatistics, Statistics, read_statistics

__all__ = [
    "Arm",
    "ArmStatistics",
    "Endpoint",
    "Folded",
    "Limits",
    "Slate",
    "Statistics",
    "capture_places",
    "captured_batches",
    "check_place",
    "deploy",
    "fold_in",
    "read_captured",
    "read_statistics",
    "slate_of",
    "some_answers",
    "start_serve",
    "undeploy",
]

_HOMES = {
    "Arm": "_slate",
    "ArmStatistics": "_statistics",
    "Endpoint": "_endpoint",
    "Folded": "_fold",
    "Limits": "_slate",
    "Slate": "_slate",
    "Statistics": "_statistics",
    "capture_places": "_fold",
    "captured_batches": "_fold",
    "check_place": "_deploy",
    "deploy": "_deploy",
    "fold_in": "_fold",
    "read_captured": "_fold",
    "read_statistics": "_statistics",
    "slate_of": "_slates",
    "some_answers": "_fold",
    "start_serve": "_deploy",
    "undeploy": "_deploy",
}

# Only when asked for: a replica needs neither a client of its own endpoint nor Delta tables.
__getattr__ = names_of(__name__, _HOMES)
