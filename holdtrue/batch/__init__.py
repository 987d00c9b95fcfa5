"""Scoring of whole tables and files, outside the endpoint."""

from holdtrue.batch._job import Scored, describe, describe_unknown, score_files
from holdtrue.batch._output import check_output, check_place, write_table
from holdtrue.batch._pieces import list_inputs
from holdtrue.batch._score import score

__all__ = [
    "Scored",
    "check_output",
    "check_place",
    "describe",
    "describe_unknown",
    "list_inputs",
    "score",
    "score_files",
    "write_table",
]
