"""One run of the monitor: fold in, compare, measure, decide, record."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from holdtrue.arrived import new_data
from holdtrue.attributed import check_attribution, shift_in_words
from holdtrue.errors import HoldtrueError, MonitoringError, ServingError
from holdtrue.estimated import estimate_quality, in_words, newest
from holdtrue.intervals import whole_until
from holdtrue.models import Signature, read_signature
from holdtrue.monitoring import Before, History, compare, decide
from holdtrue.plan import Journal, write_front_page
from holdtrue.plan._files import held
from holdtrue.profiles import CALIBRATION_FILE, Calibration, Profile
from holdtrue.quality import Quality, floor, measure_quality, performance_start
from holdtrue.references import DriftReport
from holdtrue.serving import capture_places, captured_batches, fold_in, read_statistics
from holdtrue.serving._deploy import replicas_of
from holdtrue.serving._retention import remove_old
from holdtrue.serving._watched import LastWindow, Watched, last_watched, write_watched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from holdtrue.plan import Context
    from holdtrue.progress import Progress
    from holdtrue.references import AttributionCheck, WindowCheck
    from holdtrue.registry import Champion, RegisteredVersion

# Columns of a window in a report, the most different.
_KEPT = 10
# Of what was captured, what a profile is made of.
_PROFILED = ("row", "event_time", "received")
# Slices in a report, those that lost most, and how many of those that are worse are told.
_SLICES = 20
_TOLD = 3


def watch(context: Context, *, page: bool = True) -> DriftReport:
    """Run the monitor on every window that has ended by ``context.as_of`` and is not compared yet.

    Args:
        context: Of the system; its moment is taken for now.
        page: Whether the page about all runs is written, which takes longer than the rest.

    Raises:
        MonitoringError: Nothing is served yet.
    """
    champion = context.registry.champion(context.system)
    if champion is None:
        message = f"no version of {context.system} was ever served: there is nothing to monitor"
        raise MonitoringError(message, hint="run `holdtrue apply` first")
    with context.reporter.step("monitor") as progress:
        progress(0, 0, "folding in what was captured")
        segments, table = capture_places(context.store, context.system)
        folded = fold_in(segments, table)
        signature = read_signature(
            context.store.path(champion.version.bundle), champion.version.digest
        )
        windows = _compare_windows(context, champion, signature, table, progress)
        progress(0, 0, "joining labels")
        quality = measure_quality(context, champion, signature, table)
        estimated = estimate_quality(context, champion, signature, table, windows)
        progress(0, 0, "explaining scores")
        # It decides nothing: what is wrong with it must not end a look.
        attribution: tuple[AttributionCheck, ...] = ()
        unexplained = ""
        try:
            attribution = check_attribution(context, champion, table, windows)
        except ServingError as err:
            unexplained = f"What moved the scores is not known: {err.message}."
    counts = read_statistics(context.store, context.system)
    arms = [arm for arm in counts.arms if arm.role != "shadow"]
    answered = sum(arm.requests - sum(arm.errors.values()) for arm in arms)
    refused = sum(counts.refused.get(status, 0) for status in ("400", "422"))
    arrived, unread = _arrived(context)
    decision = decide(
        windows,
        quality.checks,
        _history(context),
        context.declaration.retrain,
        context.declaration.automation,
        context.as_of,
        _before(context, champion, answered, refused, counts.capture_failures),
        arrived,
        quality.why_not,
        tuple(said for said in (quality.warning, unread, _worse_slices(quality)) if said),
    )
    before = _left_before(context, champion.version.number)
    # A look at which no window is over repeats what the last one let expect.
    held = newest([*(before.estimated if before else ()), *estimated])
    besides = (
        in_words(held),
        shift_in_words(_last_attribution(attribution, before), windows),
        unexplained,
        _watched_in_vain(context, champion, signature),
    )
    reason = " ".join(said for said in (decision.reason, *besides) if said)
    decision = decision.model_copy(update={"reason": reason})
    report = DriftReport(
        system=context.system,
        version=champion.version.number,
        at=context.as_of,
        windows=tuple(_shortened(window) for window in windows),
        performance=quality.checks,
        decision=decision,
        slices=quality.slices[:_SLICES],
        attribution=attribution,
        estimated=estimated,
        folded=folded.rows,
        answered=answered,
        refused=refused,
        lost=counts.capture_failures,
        removed=_remove_old(context, champion, windows),
    )
    context.registry.record_report(report)
    _leave_for_replicas(context, champion, report, windows)
    if page:
        write_monitor_report(context)
    return report


def report_text(report: DriftReport) -> str:
    """What a look has seen and decided, for people."""
    # Of those with too few rows each has the rows of the one before.
    told = [w for w in report.windows if w.state != "too_few_rows" or w is report.windows[-1]]
    lines = [
        f"  {window.start:%Y-%m-%d %H:%M}  {window.state.replace('_', ' ')}: {window.detail}"
        for window in told
        if window.state != "quiet"
    ]
    lines += [f"  {seen.detail}" for seen in report.performance]
    if report.removed:
        removed = f"{report.removed:,} captured rows were older than serve.keep"
        lines.append(f"  {removed} and are deleted")
    return "\n".join([*lines, f"{report.decision.action}: {report.decision.reason}"])


def _arrived(context: Context) -> tuple[str, str]:
    """What the source has that is new, and why that is not known where it cannot be read."""
    try:
        with context.places.told():
            return new_data(context), ""
    except HoldtrueError as err:
        return "", f"Whether there are new data is not known: {err.message}."


def _worse_slices(quality: Quality) -> str:
    """Which slices are surely worse than acceptable; empty where none is."""
    worse = [one for one in quality.slices if one.worse]
    if not worse:
        return ""
    more = len(worse) - _TOLD
    besides = f"; and {more:,} more" if more > 0 else ""
    return f"Worse by slice: {'; '.join(one.detail for one in worse[:_TOLD])}{besides}."


def _watched_in_vain(context: Context, champion: Champion, signature: Signature) -> str:
    """What of ``monitor.columns`` is of no use yet, as where it is declared for a later version."""
    columns = context.declaration.monitor.columns
    lacking = [name for name in columns if name not in signature.columns]
    if not lacking:
        return ""
    number = champion.version.number
    return f"monitor.columns: version {number} has no feature {' or '.join(lacking)}."


def _shortened(window: WindowCheck) -> WindowCheck:
    """A window as it is kept: of a hundred columns, those that it was decided by."""
    return window.model_copy(update={"columns": window.columns[:_KEPT]})


def _leave_for_replicas(
    context: Context, champion: Champion, report: DriftReport, windows: Sequence[WindowCheck]
) -> None:
    compared = [window for window in windows if window.state != "too_few_rows"]
    before = _left_before(context, report.version)
    window = None
    if compared:
        last = compared[-1]
        window = LastWindow(
            end=last.end,
            effect_limit=last.effect_limit,
            in_a_row=last.in_a_row,
            columns=last.columns,
        )
    elif before is not None:
        window = before.window
    seen = Watched(
        at=report.at,
        version=report.version,
        trained_as_of=champion.version.as_of,
        action=report.decision.action,
        window=window,
        performance=report.performance,
        estimated=newest([*(before.estimated if before else ()), *report.estimated]),
        attribution=_last_attribution(report.attribution, before),
    )
    write_watched(context.store, context.system, seen)


def _last_attribution(
    checks: Sequence[AttributionCheck], before: Watched | None
) -> AttributionCheck | None:
    """The newest of some checks, or what an earlier look left where there is none."""
    if checks:
        return checks[-1]
    return None if before is None else before.attribution


def _left_before(context: Context, version: int) -> Watched | None:
    """What an earlier look at the same version left for the replicas."""
    before = last_watched(context.store, context.system)
    return None if before is None or before.version != version else before


def _before(context: Context, champion: Champion, answered: int, refused: int, lost: int) -> Before:
    """What the run before decided, and what happened since."""
    last = next(iter(context.registry.drift_reports(context.system, last=1)), None)
    lost -= 0 if last is None else last.lost
    down = _down(context)
    if last is None or last.version != champion.version.number:
        return Before(lost=max(0, lost), down=down)
    began = last.decision.since
    trained = [
        version
        for version in context.registry.versions(context.system)
        if began is not None and version.as_of >= began and version.number > champion.version.number
    ]
    return Before(
        decision=last.decision,
        answered=max(0, answered - last.answered),
        refused=max(0, refused - last.refused),
        lost=max(0, lost),
        outcome=_outcome(context, trained[-1]) if trained else None,
        down=down,
    )


def _down(context: Context) -> str:
    """Why nothing answers that was served here; empty where it answers, or is meant not to.

    What was never served, ended by `down`, or is declared to have no endpoint is meant not to
    answer: its rows come by files, or interval by interval.
    """
    if not context.declaration.serve.endpoint:
        return ""
    if "ray" in context.stack.gone():
        served = Journal(context.store, context.system).last("serve")
        said = "the Ray that it was served on is gone, and was not ended by `holdtrue down`"
        return "" if served is None else f"Nothing answers: {said}; `holdtrue serve FILE` helps."
    replicas = replicas_of(context.stack, context.system)
    if replicas is None or replicas.ready:
        return ""
    return f"Nothing answers: no replica is ready ({replicas.error or 'see `holdtrue status`'})."


def _outcome(context: Context, version: RegisteredVersion) -> str:
    trained = f"Version {version.number} was trained since then, and"
    rollout = context.registry.running_rollout(context.system)
    if rollout is not None and rollout.challenger == version.number:
        return f"{trained} is rolled out by steps"
    return f"{trained} is not the champion: {version.told}"


def _remove_old(context: Context, champion: Champion, windows: list[WindowCheck]) -> int:
    """Delete captured rows that are older than declared, but none that is still looked at."""
    # When a row was received is of the clock, also where the run takes another moment for now.
    now = max(context.as_of, datetime.now(UTC))
    begin, _ = _where_it_left_off(context, champion, windows)
    _, table = capture_places(context.store, context.system)
    return remove_old(
        table,
        received_before=now - context.declaration.serve.keep,
        needed_from=min(begin, performance_start(context)),
    )


def write_monitor_report(context: Context) -> None:
    """Write the page with all that the monitor saw and decided."""
    from holdtrue import reports

    path = context.store.path("reports", context.system, "monitor.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    reports.write_drift_report(
        path, context.declaration, context.registry.drift_reports(context.system)
    )
    write_front_page(context)


def _calibration(context: Context, version: RegisteredVersion) -> Calibration:
    """The limits of a version, once they are proven to be those that its training wrote.

    Raises:
        DataError: They are gone, or are not what was written.
    """
    key = version.lineage.get("profile", "")
    record = Journal(context.store, context.system).find("profile", key)
    if record is not None:
        held(context.store, record, f"{version.profile}/{CALIBRATION_FILE}")
    return Calibration.read(context.store.path(version.profile))


def _compare_windows(
    context: Context, champion: Champion, signature: Signature, table: Path, progress: Progress
) -> list[WindowCheck]:
    length = context.declaration.monitor.window
    calibration = _calibration(context, champion.version)
    watched = context.declaration.monitor.columns
    tolerance = {
        column: None if how.drift == "off" else how.drift for column, how in watched.items()
    }
    begin, in_a_row = _where_it_left_off(context, champion)
    # Rows that are scored interval by interval come later than those of requests.
    n_windows = max(0, (whole_until(context) - begin) // length)
    checks: list[WindowCheck] = []
    pending: Profile | None = None
    start = begin
    folder = context.store.path("profiles", context.system, "windows")
    roles = signature.roles
    for number in range(n_windows):
        window_start, window_end = begin + number * length, begin + (number + 1) * length
        progress(number, n_windows, f"comparing {window_start:%Y-%m-%d %H:%M}")
        profile: Profile | None = None
        for rows in captured_batches(table, window_start, window_end, columns=_PROFILED):
            part = Profile.take(
                _feature_frame(rows, signature, by_event=context.declaration.data.time is not None),
                (*roles.numbers, *roles.times),
                roles.categories,
            )
            profile = part if profile is None else profile.merge(part)
        if profile is not None:
            profile.write(folder / f"{window_start:%Y-%m-%dT%H%M%S}.bin")
            pending = profile if pending is None else pending.merge(profile)
        if pending is None:
            start = window_end
            continue
        check = compare(calibration, pending, start, window_end, in_a_row, tolerance)
        checks.append(check)
        if check.state != "too_few_rows":
            pending, start, in_a_row = None, window_end, check.in_a_row
    return checks


def _where_it_left_off(
    context: Context, champion: Champion, windows: Sequence[WindowCheck] = ()
) -> tuple[datetime, int]:
    """The first moment not compared with this champion yet, and the suspect windows up to it.

    Args:
        context: Knows what earlier runs compared.
        champion: Of them, what was compared with this one counts.
        windows: What this run has compared.
    """
    length = context.declaration.monitor.window
    begin = floor(champion.version.as_of, length)
    in_a_row = 0
    reports = context.registry.drift_reports(context.system)
    earlier = (r.windows for r in reports if r.version == champion.version.number)
    for window in chain(*earlier, windows):
        if window.state == "too_few_rows":
            begin = window.start  # compared again, together with the next
        else:
            begin, in_a_row = window.end, window.in_a_row
    return begin, in_a_row


def _feature_frame(rows: pa.Table, signature: Signature, *, by_event: bool) -> pd.DataFrame:
    """Captured rows as the columns that were sent, shape (n_rows, n_columns), for a profile.

    Args:
        rows: What was captured.
        signature: The columns.
        by_event: Whether times are held against that of the event, as `until_event` does it; the
            event was when the request came where it did not say.
    """
    import pandas as pd

    from holdtrue.profiles import until_event

    records = [orjson.loads(row) for row in rows["row"].to_pylist()]
    columns: dict[str, Any] = {}
    roles = signature.roles
    for name in signature.columns:
        values = [record.get(name) for record in records]
        if name in roles.times:
            text = pd.Series(values, dtype=object)
            columns[name] = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
            continue
        dtype = object if name in roles.categories else "float64"
        columns[name] = pd.Series(values, dtype=dtype)
    frame = pd.DataFrame(columns)
    if not by_event:
        return frame
    event = rows["event_time"].to_pandas().fillna(rows["received"].to_pandas())
    return until_event(frame, roles.times, event)


def _history(context: Context) -> History:
    """When trainings were; all but the first count against the budget."""
    versions = context.registry.versions(context.system)
    began = Journal(context.store, context.system).trainings()
    last = max((version.as_of for version in versions), default=None)
    return History(last_trained=last, trainings=tuple(began[1:]))
