"""The Ray Serve application: scoring and capture, and how it is deployed and called."""

from holdtrue.serving._deploy import deploy, start_serve, undeploy
from holdtrue.serving._endpoint import Endpoint
from holdtrue.serving._fold import Folded, capture_places, fold_in, read_captured
from holdtrue.serving._replica import application

__all__ = [
    "Endpoint",
    "Folded",
    "application",
    "capture_places",
    "deploy",
    "fold_in",
    "read_captured",
    "start_serve",
    "undeploy",
]
