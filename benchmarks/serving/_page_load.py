"""What happens to a server under unusual load, as sections of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks._markdown import share, table
from benchmarks._pace import UNSTEADY
from benchmarks.serving._refused import HOST_TOOK
from benchmarks.serving._replicas import CROWD, STEP_CONNECTIONS
from benchmarks.serving._targets import (
    beside,
    fall_s,
    high_phases,
    median_of,
    p99,
    reversals,
    rise_s,
    settled,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def refused(part: dict[str, Any]) -> str:
    """How soon requests are refused."""
    lines = [
        (
            run["name"],
            f"{run['able']:,.0f}",
            f"{sum(run['statuses'].values()) / run['seconds']:,.0f}",
            _counts(run["statuses"]),
            _ms(run["refused_p50_ms"]),
            _ms(run["refused_p99_ms"]),
            _ms(median_of(settled(run["seconds_p99_ms"]))),
            f"{run['client_share']:.0%}",
            f"{run['lag_ms']:.0f}",
            share(run["stolen"]),
            share(run["slow"]) if "slow" in run else "",
            _ms(run.get("greeted_ms")),
        )
        for run in part["runs"]
    ]
    head = (
        *("refused with", "allowed or able, /s", "got an answer, /s", "statuses"),
        *("refused p50, ms", "refused p99, ms", "answered p99, ms", "load took of a core"),
        *("load away, ms", "host took", "slow before", "connections new, ms"),
    )
    return (
        "## Requests that are refused\n\nThree times what is allowed or can be answered. A refusal "
        "is timed by the client, from when the request was sent: the server has no clock of its "
        "own for them. Its connections are there before: each has asked once whether the server "
        "lives, and the last column says when all of them, which came at once, had the answer. "
        "Those who are answered are timed from when they should have been sent: the "
        "median of the seconds after the first, whose burst is let in. Each load is offered "
        "several times, and the median is compared with the target. Where the host gave more than "
        f"{HOST_TOOK:.0%} of the machine to others meanwhile, or the machine was slow for more "
        f"than {UNSTEADY:.0%} of the two seconds before, a load is offered again and does not "
        "count, unless none was calm; all are in the table. What is asked three times of is the "
        "most of three measurements. What a model without a "
        "compiled form has no turn for is refused at once, as soon as it is known how fast turns "
        "end, and those let in wait for one turn at most; here the model waits "
        f"{1000 * part['waits_s']:.0f} ms, so that the cores are free, and p99 is "
        f"{part['full_p99_ms']:.0f} ms where just as many ask as it answers at a time. To ask for "
        "one row three times as often as a compiled model can answer takes both cores, that of the "
        "load as much as the replica's; with ten rows a request there is room. `limits.wait` is "
        f"{part['wait_s']:g} s.\n\n{table(head, lines)}"
    )


def large(part: dict[str, Any]) -> str:
    """How soon a content that is too large is refused."""
    lines = [
        (
            name,
            _counts(way["statuses"]),
            _ms(way["milliseconds"][len(way["milliseconds"]) // 2]),
            _ms(p99(way["milliseconds"])),
            f"{way['sent_bytes'] / 1e6:.1f}",
        )
        for name, way in part["ways"].items()
    ]
    head = ("sent", "answered", "p50, ms", "p99, ms", "most of it that was sent, MB")
    return (
        f"## Contents that are too large\n\n{part['body_bytes'] / 1e6:.0f} MB where "
        f"{part['limit_bytes'] / 1e6:.0f} MB is allowed, over a connection of its own each; timed "
        "from when the server could know it: the head with the length, or else the piece with the "
        f"first byte too many.\n\n{table(head, lines)}"
    )


def burst(part: dict[str, Any]) -> str:
    """One client, many, one."""
    declared, crowd = part["declared"], part["crowd"]
    seconds = [one for one in crowd["by_second"] if one["p99_ms"] is not None]
    slow, last = max(one["p99_ms"] for one in seconds), seconds[-2:][0]["p99_ms"]
    return (
        f"## A burst\n\nOne client, {CROWD} more at once, one again; each asks again as soon as it "
        f"has its answer. {_declared(declared)}; {declared['target_ongoing_requests']} is the "
        "default. Two replicas and the load are three processes on two cores: the second replica "
        "is there to be counted, and makes little faster.\n\n"
        f"{declared['max']} replicas lived {_s(rise_s(part))} after the burst began; one was left "
        f"{_s(fall_s(part))} after it was over. Answers: {_counts(crowd['statuses'])} to the "
        f"crowd, {_counts(part['alone']['statuses'])} to the one; without an answer: "
        f"{sum(crowd['errors'].values()) + sum(part['alone']['errors'].values())}. 99th "
        f"percentile of the crowd: {slow:.0f} ms in the worst second, {last:.0f} ms in the last "
        f"whole one. Looked at every half second: {_course(part['points'], part['began_at'])}.\n"
    )


def steps(part: dict[str, Any]) -> str:
    """Low, high, low, high."""
    phases = ", ".join(f"{phase['rate']:g} for {phase['seconds']:g} s" for phase in part["phases"])
    lines = [
        (
            f"{number}",
            _s(one["rise_s"]),
            _s(one["settled_s"]),
            f"{one['limit_ms']:.0f}",
            f"{one['reversals']}",
        )
        for number, one in enumerate(high_phases(part), 1)
    ]
    head = ("high phase", "two replicas after", "p99 back after", "normal, ms", "reversals")
    all_of = reversals([one["wanted"] for one in part["points"]])
    return (
        "## A load in steps\n\nThe model waits "
        f"{1000 * part['waits_s']:.0f} ms and uses no CPU, so that a second replica does as much "
        "as the first also on two cores; a compiled model, which takes a core, would show the "
        f"machine's limit instead. {_declared(part['declared'])}, as many as a replica scores at a "
        f"time. Requests a second over {STEP_CONNECTIONS} connections: {phases}.\n\n"
        "Normal is at most twice the worst second in the later half of the low phase before, at "
        "least 5 ms, and without a refusal; back is when that holds until the phase ends. A "
        "reversal is a change of the replicas that Serve wants, within the phase, against the "
        "change before; in the whole run, where each step down asks for one, there were "
        f"{all_of}.\n\n"
        f"{table(head, lines)}\nAnswers: {_counts(part['statuses'])}; "
        f"{sum(part['errors'].values())} without. "
        f"{_course(part['points'], part['began_at']).capitalize()}.\n"
    )


def shadow(part: dict[str, Any]) -> str:
    """Callers beside shadows."""
    found, starting = beside(part["runs"]), beside(part["starting"])
    turns = len(part["runs"]) // len(found)
    lines = []
    for name, (middle, least, most) in found.items():
        runs = [run for run in part["runs"] if run["shadow"] == name]
        lines.append(
            (
                name,
                f"{middle:.2f}",
                f"{least:.2f} to {most:.2f}",
                f"{starting[name][0]:.2f}",
                f"{sum(run['shadow_failed'] for run in runs):,}",
                f"{sum(run['shadow_dropped'] for run in runs):,}",
                f"{sum(run['cpu_us'] for run in runs) / len(runs):,.0f}",
                share(max(run["foreign"] for run in runs)),
            )
        )
    head = (
        *("shadow", "p99, ms", "of the turns", "p99 just after it was deployed, ms"),
        *("it failed at", "it was not asked", "CPU us a request", "others took"),
    )
    return (
        f"## Beside a shadow\n\n{part['rate']:,.0f} requests a second, a quarter of what the "
        f"replica answers, over {part['connections']} connections; medians of {turns} turns each. "
        "The shadows have no compiled form, so that what they do to a row before they "
        "fail at it is done by pandas, in a process of their own that only takes time that nobody "
        "else wants. Just after a shadow is deployed that process imports its libraries; what is "
        f"compared comes after that.\n\n{table(head, lines)}"
    )


def batching(part: dict[str, Any]) -> str:
    """Rows of several requests together."""
    lines = [
        (
            run["name"],
            f"{run['per_s']:,.0f}",
            f"{run['mean_rows']:.1f}",
            _ms(run["p50_ms"]),
            _ms(run["p99_ms"]),
            _counts(run["statuses"]),
            f"{run['dropped']:,}",
            f"{run['cpu_us']:,.0f}",
            share(run["foreign"]),
        )
        for run in part["runs"]
    ]
    head = (
        *("scored", "answered, /s", "rows together", "p50, ms", "p99, ms", "statuses"),
        *("not asked in time", "CPU us a request", "others took"),
    )
    return (
        f"## Scored together\n\n{part['rate']:g} requests of one row a second for a neural network "
        f"of scikit-learn, which has no compiled form; `limits.wait` is {part['wait_ms']:g} ms."
        f"\n\n{table(head, lines)}"
    )


def _declared(declared: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name}: {value}" for name, value in declared.items())
    return f"Declared is `replicas: {{{values}}}`"


def _course(points: Iterable[dict[str, Any]], began_at: float) -> str:
    """When another number of replicas was wanted, and when it lived."""
    said, before = [], (0, 0)
    for one in points:
        now = (one["wanted"], one["up_to_date"])
        if now != before:
            said.append(f"{now[0]} wanted and {now[1]} alive at {one['at'] - began_at:.0f} s")
        before = now
    return ", ".join(said)


def _counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} of {status}" for status, count in sorted(statuses.items()))


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _s(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"
