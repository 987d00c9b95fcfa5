"""Scoring of whole tables and files, outside the endpoint."""

from holdtrue.batch._job import Scored, describe, score_files
from holdtrue.batch._pieces import list_inputs
from holdtrue.batch._score import score

__all__ = ["Scored", "describe", "list_inputs", "score", "score_files"]
