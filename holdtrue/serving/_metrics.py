"""What replicas count, in the text format that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from holdtrue.serving._statistics import (
    LATENCY_BOUNDS_S,
    PROBABILITY_BOUNDS,
    VALUE_BOUNDS,
    merge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from holdtrue.serving._slate import Slate
    from holdtrue.serving._statistics import ArmStatistics, ReplicaStatistics, Statistics
    from holdtrue.serving._watched import Watched

MEDIA_TYPE = CONTENT_TYPE_LATEST
_ARM = ("system", "version", "role")


def exposition(
    slate: Slate,
    counts: Statistics,
    replicas: Sequence[ReplicaStatistics],
    watched: Watched | None = None,
) -> bytes:
    """The metrics of a system.

    Args:
        slate: What is served.
        counts: Of all replicas.
        replicas: Those that live.
        watched: What the monitor saw last; None where it never looked.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(slate, counts, replicas))
    if watched is not None:
        registry.register(_Seen(slate.system, watched))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(
        self,
        slate: Slate,
        counts: Statistics,
        replicas: Sequence[ReplicaStatistics],
    ) -> None:
        self._slate, self._counts, self._replicas = slate, counts, replicas
        # In which rollout something was counted would make a new series for each of them.
        plain = (arm.model_copy(update={"rollout": None}) for arm in counts.arms)
        self._arms = merge(plain)

    def collect(self) -> Iterable[Metric]:
        yield from self._of_arms()
        yield self._probabilities()
        yield self._values()
        yield from self._of_all()
        yield from self._of_now()

    def _labels(self, arm: ArmStatistics) -> list[str]:
        return [self._slate.system, str(arm.version), arm.role]

    def _of_arms(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "holdtrue_requests", "Requests that a version was asked to score", labels=_ARM
        )
        rows = CounterMetricFamily("holdtrue_rows", "Rows that were scored", labels=_ARM)
        errors = CounterMetricFamily(
            "holdtrue_errors",
            "Requests that a version could not score, by reason",
            labels=(*_ARM, "reason"),
        )
        unknown = CounterMetricFamily(
            "holdtrue_unknown_categories",
            "Values that are no category that the version knows, by column",
            labels=(*_ARM, "column"),
        )
        seconds = HistogramMetricFamily(
            "holdtrue_request_seconds",
            "Time from a request's arrival to its answer; of a shadow that of scoring",
            labels=_ARM,
        )
        for arm in self._arms:
            labels = self._labels(arm)
            requests.add_metric(labels, arm.requests)
            rows.add_metric(labels, arm.rows)
            for reason, count in sorted(arm.errors.items()):
                errors.add_metric([*labels, reason], count)
            for column, count in sorted(arm.unknown.items()):
                unknown.add_metric([*labels, column], count)
            if arm.latency:
                buckets = _cumulated(LATENCY_BOUNDS_S, arm.latency)
                seconds.add_metric(labels, buckets, arm.latency_sum_s)
        yield from (requests, rows, errors, unknown, seconds)

    def _probabilities(self) -> Metric:
        family = HistogramMetricFamily(
            "holdtrue_probability",
            "Predicted probabilities, by class",
            labels=(*_ARM, "class"),
        )
        for arm in self._arms:
            for index, counts in enumerate(arm.probabilities):
                name = arm.classes[index] if arm.classes else str(index)
                mean = arm.scores.mean[index] if arm.scores.n else 0.0
                family.add_metric(
                    [*self._labels(arm), name],
                    _cumulated(PROBABILITY_BOUNDS, counts),
                    mean * arm.scores.n,
                )
        return family

    def _values(self) -> Metric:
        family = HistogramMetricFamily("holdtrue_value", "Predicted values", labels=_ARM)
        for arm in self._arms:
            if not arm.values:
                continue
            labels = self._labels(arm)
            buckets = _cumulated(VALUE_BOUNDS, arm.values)
            family.add_metric(labels, buckets, None)
            # The library leaves these two out where values may be negative.
            told = dict(zip(_ARM, labels, strict=True))
            family.add_sample("holdtrue_value_count", told, buckets[-1][1])
            mean = arm.scores.mean[0] if arm.scores.n else 0.0
            family.add_sample("holdtrue_value_sum", told, mean * arm.scores.n)
        return family

    def _of_all(self) -> Iterator[Metric]:
        system, counts = [self._slate.system], self._counts
        refused = CounterMetricFamily(
            "holdtrue_refused",
            "Requests that no version was asked to score, by the status of the answer",
            labels=("system", "status"),
        )
        for status, count in sorted(counts.refused.items()):
            refused.add_metric([*system, status], count)
        yield refused
        for name, says, value in (
            ("captured_rows", "Rows that were captured", counts.captured),
            ("capture_failures", "Rows that could not be captured", counts.capture_failures),
            ("shadow_dropped", "Requests that a shadow was too slow for", counts.shadow_dropped),
            ("batches", "Times that rows of several requests were scored at once", counts.batches),
            ("batched_rows", "Rows that were scored so", counts.batched_rows),
            (
                "write_failures",
                "Times that a replica could not write its counts or the slate that it serves",
                counts.write_failures,
            ),
        ):
            family = CounterMetricFamily(f"holdtrue_{name}", says, labels=("system",))
            family.add_metric(system, value)
            yield family

    def _of_now(self) -> Iterator[Metric]:
        system = self._slate.system
        gauges = [replica.gauges for replica in self._replicas]
        for name, says, value in (
            ("replicas", "Replicas that live", len(gauges)),
            ("ongoing", "Requests that are answered now", sum(g.ongoing for g in gauges)),
            ("waiting", "Requests that wait for their turn", sum(g.waiting for g in gauges)),
            ("connections", "Open connections", sum(g.connections for g in gauges)),
            (
                "shadow_waiting",
                "Requests that a shadow has not scored yet",
                sum(g.shadow_waiting for g in gauges),
            ),
        ):
            family = GaugeMetricFamily(f"holdtrue_{name}", says, labels=("system",))
            family.add_metric([system], value)
            yield family
        weight = GaugeMetricFamily(
            "holdtrue_weight", "Share of the requests that a version answers", labels=_ARM
        )
        for arm in self._slate.arms:
            weight.add_metric([system, str(arm.version), arm.role], arm.weight)
        yield weight


class _Seen(Collector):
    """What the monitor saw last."""

    def __init__(self, system: str, watched: Watched) -> None:
        self._watched = watched
        self._version = {"system": system, "version": str(watched.version)}

    def collect(self) -> Iterable[Metric]:
        watched = self._watched
        yield self._gauge(
            "monitor_timestamp_seconds", "When the monitor looked last", watched.at.timestamp()
        )
        actions = GaugeMetricFamily(
            "holdtrue_monitor_action",
            "What it decided: 1 for that, 0 for the others",
            labels=("system", "version", "action"),
        )
        for action in ("none", "warn", "retrain", "fix_data"):
            actions.add_metric([*self._version.values(), action], action == watched.action)
        yield actions
        yield self._gauge(
            "trained_as_of_timestamp_seconds",
            "The moment that the data of the version end at",
            watched.trained_as_of.timestamp(),
        )
        yield from self._drift()
        yield from self._quality()
        yield from self._estimated()
        yield from self._attribution()

    def _gauge(self, name: str, says: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"holdtrue_{name}", says, labels=tuple(self._version))
        family.add_metric([*self._version.values()], value)
        return family

    def _drift(self) -> Iterator[Metric]:
        window = self._watched.window
        if window is None:
            return
        yield self._gauge(
            "drift_window_end_timestamp_seconds",
            "End of the newest window that was compared",
            window.end.timestamp(),
        )
        yield self._gauge("suspect_windows", "Suspect windows in a row", window.in_a_row)
        yield self._gauge(
            "drift_effect_limit",
            "Above this and not by chance, a column makes its window suspect",
            window.effect_limit,
        )
        effects = GaugeMetricFamily(
            "holdtrue_drift_effect",
            "How much a column differs: 1 is much for a quiet window",
            labels=(*self._version, "column"),
        )
        p_values = GaugeMetricFamily(
            "holdtrue_drift_p_value",
            "How likely chance makes such a difference",
            labels=(*self._version, "column"),
        )
        for column in window.columns:
            labels = [*self._version.values(), column.column]
            effects.add_metric(labels, column.effect)
            p_values.add_metric(labels, column.p_value)
        yield from (effects, p_values)

    def _quality(self) -> Iterator[Metric]:
        labels = (*self._version, "metric")
        families = {
            name: GaugeMetricFamily(f"holdtrue_quality{name}", says, labels=labels)
            for name, says in (
                ("", "The metric on rows whose labels have come"),
                ("_low", "Lower end of its interval"),
                ("_high", "Upper end of its interval"),
                ("_limit", "Beyond this, with the whole interval, the version has become worse"),
                ("_rows", "Rows that it was measured on"),
            )
        }
        for check in self._watched.performance:
            value = check.value
            found = (value.value, value.low, value.high, check.limit, check.rows)
            for family, number in zip(families.values(), found, strict=True):
                family.add_metric([*self._version.values(), check.metric], number)
        yield from families.values()

    def _attribution(self) -> Iterator[Metric]:
        check = self._watched.attribution
        labels = (*self._version, "column", "output")
        families = [
            GaugeMetricFamily(f"holdtrue_attribution_{name}", says, labels=labels)
            for name, says in (
                ("shift", "How much more a column adds to the mean score than on the test rows"),
                ("effect", "The same in standard deviations between stretches of the test rows"),
            )
        ]
        for one in () if check is None else check.columns:
            given = [*self._version.values(), one.column, one.output or ""]
            for family, number in zip(families, (one.shift, one.effect), strict=True):
                family.add_metric(given, number)
        yield from families
        if check is not None:
            yield self._gauge(
                "attribution_effect_limit",
                "The most of any column in stretches of the test rows",
                check.limit,
            )

    def _estimated(self) -> Iterator[Metric]:
        labels = (*self._version, "metric", "of")
        families = [
            GaugeMetricFamily(f"holdtrue_estimated_quality{name}", says, labels=labels)
            for name, says in (
                ("", "The metric as the probabilities alone let expect it, before labels come"),
                ("_low", "Lower end of its interval"),
                ("_high", "Upper end of its interval"),
                ("_rows", "Rows that it was estimated on"),
            )
        ]
        for one in self._watched.estimated:
            found = (one.value.value, one.value.low, one.value.high, one.rows)
            for family, number in zip(families, found, strict=True):
                family.add_metric([*self._version.values(), one.metric, one.of], number)
        yield from families


def _cumulated(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
