"""Reports with plots, one file each, made from references alone."""

from holdtrue.reports._backtest import backtest_markdown, backtest_page
from holdtrue.reports._comparison import comparison_text, write_comparison
from holdtrue.reports._data import data_markdown, write_data_report
from holdtrue.reports._drift import drift_markdown, write_drift_report
from holdtrue.reports._evaluation import evaluation_markdown, write_evaluation_report
from holdtrue.reports._index import write_index
from holdtrue.reports._page import Page
from holdtrue.reports._rollout import rollout_markdown, write_rollout_report
from holdtrue.reports._run import run_markdown, run_words, write_run_report
from holdtrue.reports._tuning import (
    tuning_markdown,
    tuning_page,
    tuning_text,
    write_tuning_report,
)

__all__ = [
    "Page",
    "backtest_markdown",
    "backtest_page",
    "comparison_text",
    "data_markdown",
    "drift_markdown",
    "evaluation_markdown",
    "rollout_markdown",
    "run_markdown",
    "run_words",
    "tuning_markdown",
    "tuning_page",
    "tuning_text",
    "write_comparison",
    "write_data_report",
    "write_drift_report",
    "write_evaluation_report",
    "write_index",
    "write_rollout_report",
    "write_run_report",
    "write_tuning_report",
]
