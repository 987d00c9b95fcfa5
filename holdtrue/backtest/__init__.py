"""Plays the declared life of a model over history, before anybody trusts it."""

from holdtrue.backtest._play import backtest, backtest_folder
from holdtrue.backtest._result import Backtest, Compared, Period, Played, Training

__all__ = [
    "Backtest",
    "Compared",
    "Period",
    "Played",
    "Training",
    "backtest",
    "backtest_folder",
]
