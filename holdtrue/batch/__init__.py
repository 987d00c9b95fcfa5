"""Scoring of whole tables and files, outside the endpoint."""

from holdtrue.batch._job import Scored, describe, score_files
from holdtrue.batch._output import check_output, write_table
from holdtrue.batch._pieces import list_inputs
from holdtrue.batch._score import score

__all__ = [
    "Scored",
    "check_output",
    "describe",
    "list_inputs",
    "score",
    "score_files",
    "write_table",
]
