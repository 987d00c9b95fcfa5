"""Decides what to do about what the checks saw, and says why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from holdtrue.declaration._values import format_duration
from holdtrue.profiles import IN_A_ROW
from holdtrue.references import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdtrue.declaration._models import Automation, Retrain
    from holdtrue.references import PerformanceCheck, WindowCheck

WARN_IN_A_ROW = 2
"""Suspect windows in a row that are worth a warning."""
_NAMED = 3
_MANY_REFUSED = 20
_BROKEN = frozenset({"absent", "empty", "broken"})

Signal = Literal["drift", "performance", "data", "age", "schema"]


@dataclass(frozen=True)
class History:
    """What happened before.

    Args:
        last_trained: Moment of the last training that ended with a version, with a time zone; None
            where there was none. It says how old the model is.
        trainings: When trainings began that count against the budget, whatever came of them: a
            training that fails is not repeated at once either.
    """

    last_trained: datetime | None = None
    trainings: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Before:
    """What is known of the time since the last run of the monitor, with the same champion.

    Args:
        decision: Of that run; None where there was none.
        answered: Requests that were answered since.
        refused: Requests that were refused for their content since.
        lost: Answered rows that could not be captured since.
        outcome: What became of the version that was trained since the decision was first made, in
            words; None where none was trained.
        down: Why nothing answers now that was served here, in words; empty where it answers, or
            where it is meant not to.
    """

    decision: Decision | None = None
    answered: int = 0
    refused: int = 0
    lost: int = 0
    outcome: str | None = None
    down: str = ""


def decide(
    windows: Sequence[WindowCheck],
    performance: Sequence[PerformanceCheck],
    history: History,
    retrain: Retrain,
    automation: Automation,
    at: datetime,
    before: Before = Before(),
    new_data: str = "",
    unmeasured: str = "no labels to judge the quality by",
    warnings: Sequence[str] = (),
) -> Decision:
    """Decide what follows from the checks of one run of the monitor.

    The rows of the newest window decide about the schema: if a column is missing, empty or full
    of unknown values, the data must be repaired and nothing is trained on them. Otherwise drift
    (three suspect windows in a row anywhere in the run, or many unseen values in one), lost
    performance, new data and age lead to a retraining, if the declaration lists them. Cooldown,
    budget and manual automation hold a retraining back; the decision then says until when.

    What windows showed holds until a later one is compared: a training that failed is called for
    again, and nothing is in order because nobody asked since.

    Args:
        windows: Windows compared since the last decision, oldest first, all with the model that
            is served now.
        performance: Checks of the same run.
        history: Earlier trainings.
        retrain: What the declaration says about retraining.
        automation: Who starts a retraining.
        at: The moment of the decision, with a time zone.
        before: The run before, and what happened since.
        new_data: What the source has that the last training had not, in words; empty for nothing.
        unmeasured: Why there are no checks of quality, where there are none.
        warnings: What could not be looked at, and why, in sentences.
    """
    judged = [window for window in windows if window.state != "too_few_rows"]
    seen, since = {"schema": _schema(judged), "drift": _drift(judged)}, at
    seen = {signal: said for signal, said in seen.items() if said}
    open_ = before.decision
    if not judged and open_ is not None and open_.seen:
        seen, since = dict(open_.seen), open_.since or open_.at
    lasts = bool(seen) and not (judged and judged[-1].state == "quiet")
    kept: dict[str, Any] = {"seen": seen, "since": since} if lasts else {}
    later = "" if judged or not seen else "; no window to compare is over since then"
    found = {
        "schema": seen.get("schema", "") and seen["schema"] + later,
        "drift": seen.get("drift", "") and seen["drift"] + later,
        "performance": "; ".join(check.detail for check in performance if check.worse),
        "data": new_data if "data" in retrain.on else "",
        "age": _age(history, retrain, at) if "age" in retrain.on else "",
    }
    signals: tuple[Signal, ...] = tuple(
        signal for signal in ("schema", "drift", "performance", "data", "age") if found[signal]
    )
    told = ". ".join(found[signal] for signal in signals)
    besides = "".join(f" {said}" for said in warnings)
    if "schema" in signals:
        what = f"{told}. Repair the data that reach the model; a training on them would not help"
        reason = f"{what}.{besides}"
        return Decision(at=at, action="fix_data", signals=signals, reason=reason, **kept)
    asked = [signal for signal in signals if signal in retrain.on]
    if asked == ["drift"] and later and before.outcome is not None:
        reason = f"{told}. {before.outcome}.{besides}"
        return Decision(at=at, action="warn", signals=signals, reason=reason, **kept)
    if asked:
        held_back = _held_back(history, retrain, automation, at)
        then = f"Not retrained: {held_back}" if held_back else "A retraining is called for"
        reason = f"{told}. {then}.{besides}"
        return Decision(
            at=at, action="retrain", signals=signals, held_back=held_back, reason=reason, **kept
        )
    if signals:
        then = f"Not retrained: retrain.on does not list {' or '.join(signals)}"
        reason = f"{told}. {then}.{besides}"
        return Decision(at=at, action="warn", signals=signals, reason=reason, **kept)
    blind = [said for said in (before.down, _refused(before), _lost(before), *warnings) if said]
    if blind:
        return Decision(at=at, action="warn", reason=" ".join(blind))
    quality = "; ".join(check.detail for check in performance) or unmeasured
    return _without_signal(windows, judged, quality, at)


def _refused(before: Before) -> str:
    """That callers are refused, mostly; empty where they are not."""
    if before.refused < _MANY_REFUSED or before.refused <= before.answered:
        return ""
    return (
        f"{before.refused:,} requests were refused for their content since the last check, and "
        f"{before.answered:,} were answered: `holdtrue logs` has some of them."
    )


def _lost(before: Before) -> str:
    """That rows were answered which nothing here has seen; empty where there are none."""
    if not before.lost:
        return ""
    return (
        f"{before.lost:,} answered rows could not be captured since the last check, and are in no "
        "window: see that the store's disk has room."
    )


def _schema(judged: Sequence[WindowCheck]) -> str:
    """What is broken in the newest window; empty where nothing is."""
    if not judged or not _is_broken(judged[-1]):
        return ""
    since = judged[-1]
    for window in reversed(judged):
        if not _is_broken(window):
            break
        since = window
    return f"The data are broken since {_moment(since.start)}: {judged[-1].detail}"


def _age(history: History, retrain: Retrain, at: datetime) -> str:
    """That the last training is too long ago; empty where it is not."""
    last = history.last_trained
    if last is None or at - last < retrain.max_age:
        return ""
    days = (at - last).total_seconds() / 86_400
    limit = format_duration(retrain.max_age)
    return f"The last training was {days:.1f} days ago ({_moment(last)}), max_age is {limit}"


def _is_broken(window: WindowCheck) -> bool:
    return window.state == "alarm" and any(one.test in _BROKEN for one in window.columns)


def _drift(judged: Sequence[WindowCheck]) -> str:
    """The newest drift of the run; empty where there is none."""
    lasting = [
        index
        for index, window in enumerate(judged)
        if window.in_a_row >= IN_A_ROW or (window.state == "alarm" and not _is_broken(window))
    ]
    if not lasting:
        return ""
    last = lasting[-1]
    first = max(0, last - judged[last].in_a_row + 1)
    n_windows = judged[last].in_a_row
    length = "in one window" if n_windows == 1 else f"in {n_windows} windows in a row"
    still = "" if last == len(judged) - 1 else f", until {_moment(judged[last].end)}"
    since = f"since {_since(judged, last)}{still}"
    seen = f"Drift {length} {since}{_columns(judged[first : last + 1])}"
    seen += f"; last: {judged[last].detail} {_numbers(judged[last])}"
    others = sum(window.in_a_row == IN_A_ROW for window in judged[:first])
    return seen + (f"; {others} earlier in this run" if others else "")


def _since(judged: Sequence[WindowCheck], last: int) -> str:
    """When the row of suspect windows began that ends with the given one."""
    first = last - judged[last].in_a_row + 1
    begin = _moment(judged[max(0, first)].start)
    return begin if first >= 0 else f"before {begin}"


def _columns(windows: Sequence[WindowCheck]) -> str:
    """Which columns made several windows suspect, and how many each."""
    counts = Counter(
        one.column
        for window in windows
        for one in window.columns
        if one.p_value < window.p_limit and one.effect > window.effect_limit
    )
    named = [f"{column} in {count}" for column, count in counts.most_common(_NAMED)]
    return f" ({', '.join(named)})" if len(windows) > 1 and named else ""


def _numbers(window: WindowCheck) -> str:
    return f"(largest effect {window.effect:.1f}, limit {window.effect_limit:.1f})"


def _held_back(
    history: History, retrain: Retrain, automation: Automation, at: datetime
) -> str | None:
    if automation == "manual":
        return "automation is manual: run `holdtrue apply --refresh`"
    began = [moment for moment in (history.last_trained, *history.trainings) if moment is not None]
    last = max(began, default=None)
    if last is not None and at < last + retrain.cooldown:
        until = _moment(last + retrain.cooldown)
        cooldown = format_duration(retrain.cooldown)
        return f"cooldown of {cooldown} until {until} (last trained {_moment(last)})"
    budget = retrain.at_most
    recent = sorted(moment for moment in history.trainings if at - budget.per < moment <= at)
    if len(recent) >= budget.count:
        until = _moment(recent[-budget.count] + budget.per)
        return f"budget of {budget} is used up until {until}"
    return None


def _without_signal(
    windows: Sequence[WindowCheck],
    judged: Sequence[WindowCheck],
    quality: str,
    at: datetime,
) -> Decision:
    if not judged:
        none = "none with new rows is over: monitor.window says how long one is"
        few = f"{len(windows)} with too few rows" if windows else none
        reason = f"No window to compare ({few}); {quality}."
        return Decision(at=at, action="none", reason=reason)
    last = judged[-1]
    if last.in_a_row >= WARN_IN_A_ROW:
        since = _since(judged, len(judged) - 1)
        reason = (
            f"{last.in_a_row} suspect windows in a row since {since}: {last.detail} "
            f"{_numbers(last)}. If the next one is suspect too, that is drift; {quality}."
        )
        return Decision(at=at, action="warn", reason=reason)
    suspects = [window for window in judged if window.state != "quiet"]
    most = max(judged, key=lambda window: window.effect / window.effect_limit)
    seen, numbers = "none suspect", _numbers(most)
    if not suspects and most.effect > most.effect_limit:
        # Large, but not beyond what chance does.
        numbers = f"{numbers[:-1]}; p-value {most.p_value:.2g}, limit {most.p_limit:.2g})"
    if suspects:
        longest = max(window.in_a_row for window in judged)
        seen = (
            f"{len(suspects)} suspect, at most {longest} in a row ({IN_A_ROW} are a drift), "
            f"the last from {_moment(suspects[-1].start)}: {suspects[-1].detail}"
        )
    count = "1 window" if len(judged) == 1 else f"{len(judged)} windows"
    reason = f"{count} compared, {seen} {numbers}; {quality}."
    return Decision(at=at, action="none", reason=reason)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
