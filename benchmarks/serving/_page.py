"""The measurements of serving as a page of Markdown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks._markdown import MB, NOISY, of_parts, share, table, targets_of
from benchmarks.serving._ours import OURS
from benchmarks.serving._page_load import batching, burst, large, refused, shadow, steps
from benchmarks.serving._parts import PARTS
from benchmarks.serving._targets import at_full_load, back_s, during, failed, medians, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = (
    *("", "connections", "requests/s", "p50, ms", "p99, ms", "CPU us a request"),
    *("memory, MB", "failed", "others took", "load took of a core"),
)


def page(found: dict[str, Any]) -> str:
    """The page.

    Args:
        found: What `benchmarks.serve` has measured, with the parts there are.
    """
    parts = found["parts"]
    written = {
        "peers": _peers,
        "linear": _linear,
        "in-process": _in_process,
        "capture": _capture,
        "swaps": _swaps,
        "kill": _kill,
        "overload": _overload,
        "refused": refused,
        "large": large,
        "burst": burst,
        "steps": steps,
        "shadow": shadow,
        "batching": batching,
    }
    sections = [write(parts[part]) for part, write in written.items() if part in parts]
    return "\n".join(
        ["# Serving: how fast, and what it stands\n", _about(found), _targets(parts), *sections]
    )


def _about(found: dict[str, Any]) -> str:
    size, parts = found["size"], found["parts"]
    others = "; the others as `benchmarks/requirements-serve.txt` has them"
    load = "; ".join(
        f"{name} {', '.join(f'{value:.1f}' for value in part['machine']['load_before'])}"
        for name, part in parts.items()
    )
    return (
        f"{of_parts('make bench-serve', found, PARTS, others)}\n"
        "Everybody serves the same fitted pipeline, 200 trees of depth 6 on 18 columns of the "
        "flights, and is seen to answer as the pipeline does (within 1e-6) before it is measured. "
        "Each has its own protocol and one process that scores. MLServer has no pool of workers, "
        "which does not start; FastAPI scores in its event loop, which is faster than in threads. "
        f"`{OURS}` is Ray Serve with one replica as it is by default: keys are asked for and every "
        "answer is captured. Bare uvicorn has the same compiled scorer and nothing else: no key, "
        "no identifiers, no capture.\n\n"
        "The load comes from one process with connections that are kept, each asking again as soon "
        "as it has its answer, and shares the cores with the server. CPU: of all processes of the "
        "server, all of Ray included. Memory: of the same, each page divided by the number that "
        "share it. Others took: the share of the machine that neither the server nor the load had; "
        "**bold** above 10 %, where times say little. Numbers are medians of the rounds "
        f"({size['rounds']}), in which the servers take turns; {size['seconds']:g} s each.\n\n"
        f"Load averages of the machine before each part (1, 5 and 15 minutes): {load}.\n"
    )


def _targets(parts: dict[str, Any]) -> str:
    most = max(
        (run.get("foreign", 0) for part in parts.values() for run in part.get("runs", ())),
        default=0,
    )
    warning = (
        f"Others took up to {most:.0%} of the machine while servers were measured, and not the "
        "same of each: what is compared below is not settled.\n\n"
        if most > NOISY
        else ""
    )
    return targets_of(targets(parts), warning)


def _peers(part: dict[str, Any]) -> str:
    cells = medians(part["runs"])
    many = dict.fromkeys(rows for _, rows, _ in cells)
    tables = [
        f"{'One row' if rows == 1 else f'{rows} rows'} a request:\n\n{_table(part['runs'], rows)}"
        for rows in many
    ]
    replicas = [run["replica_bytes"] / MB for run in part["runs"] if "replica_bytes" in run]
    memory = f"\nA replica of ours takes {max(replicas):.0f} MB.\n" if replicas else ""
    return "## Side by side\n\n" + "\n".join(tables) + memory + _failed(part)


def _linear(part: dict[str, Any]) -> str:
    return f"## With a logistic regression\n\n{_table(part['runs'], 1)}{_failed(part)}"


def _failed(part: dict[str, Any]) -> str:
    return "".join(
        f"\n{name} was not measured:\n\n```\n{why}\n```\n" for name, why in part["failed"].items()
    )


def _table(runs: Sequence[dict[str, Any]], rows: int) -> str:
    lines = [
        (
            name,
            f"{c}",
            f"{cell['per_s']:,.0f}",
            f"{cell['p50_ms']:.2f}" if "p50_ms" in cell else "",
            f"{cell['p99_ms']:.2f}" if "p99_ms" in cell else "",
            f"{cell['cpu_us']:,.0f}",
            f"{cell['memory_bytes'] / MB:.0f}",
            f"{cell['failed']:.0f}",
            share(cell["foreign"]),
            f"{cell['client_share']:.0%}",
        )
        for (name, many, c), cell in medians(runs).items()
        if many == rows
    ]
    return table(_HEAD, lines)


def _in_process(part: dict[str, Any]) -> str:
    lines = [
        (
            line["model"],
            f"{line['rows']:,}",
            f"{line['ours']:,.0f}",
            f"{line['records']:,.0f}",
            f"{line['frame']:,.0f}",
            f"{line['frame'] / line['ours']:.1f}",
            f"{line['difference']:.1e}",
        )
        for line in part["lines"]
    ]
    head = (
        *("model", "rows", "compiled, us", "pipeline from records, us", "predict_proba alone, us"),
        *("times as fast as predict_proba", "largest difference"),
    )
    return (
        "## In process\n\nMedians of the calls, records to probabilities; from 1,000 rows on ours "
        f"takes columns.\n\n{table(head, lines)}"
    )


def _capture(part: dict[str, Any]) -> str:
    lines = [
        (
            run["name"],
            f"{run['per_s']:,.0f}",
            f"{run['p99_ms']:.2f}",
            f"{run['cpu_us']:,.0f}",
            share(run["foreign"]),
        )
        for run in part["runs"]
    ]
    head = ("", "requests/s", "p99, ms", "CPU us a request", "others took")
    return f"## Capture\n\nIn turns, one replica:\n\n{table(head, lines)}"


def _swaps(part: dict[str, Any]) -> str:
    swaps = part["swap_seconds"]
    shares = ", ".join(f"{mark['answers']:,} by {v}" for v, mark in part["marks"].items())
    return (
        f"## Swaps under load\n\n{part['rate']:,.0f} requests a second, half of what one replica "
        f"answered, over 32 connections for {part['seconds']:.0f} s: {part['answers']:,} answers "
        f"({shares}), {failed(part)} failed, {part['dropped']} not asked in time, "
        f"{part['stalled']} took longer than 250 ms from when they were due; longest "
        f"{part['longest_ms']:.0f} ms, p99 {part['p99_ms']:.1f} ms. The load itself was away for "
        f"{part['lag_ms']:.0f} ms at most.\n\nA swap took {min(swaps):.1f} to {max(swaps):.1f} s "
        "from the call until every replica was known to answer with the new version. The way back "
        f"took {part['rollback_s']:.1f} s; the last answer by the version that was taken back came "
        f"after {part['last_answer_s']:.1f} s.\n"
    )


def _kill(part: dict[str, Any]) -> str:
    lines = [
        (
            f"{one['answers']:,}",
            f"{one['retried']}",
            f"{failed(one)}",
            f"{one['stalled']}",
            f"{one['longest_ms']:.0f}",
            f"{one['full_s']:.1f}",
        )
        for one in part["kills"]
    ]
    head = ("answers", "retried", "failed", "stalled", "longest, ms", "full strength after, s")
    return (
        f"## A replica is killed\n\n{part['rate']:,.0f} requests a second, half of what two "
        "replicas answered; a request whose connection broke is sent once more.\n\n"
        f"{table(head, lines)}"
    )


def _overload(part: dict[str, Any]) -> str:
    back = back_s(part)
    statuses = ", ".join(f"{count:,} of {status}" for status, count in part["statuses"].items())
    offered = 3 * part["capacity"]
    lines = [
        (
            f"{number}",
            f"{second['answers']:,}",
            f"{sum(second['statuses'].values()) - second['answers']:,}",
            "" if second["p99_ms"] is None else f"{second['p99_ms']:.1f}",
        )
        for number, second in enumerate(part["by_second"])
    ]
    words = "never" if back is None else f"{back:.0f} s later"
    later, full = during(part), part["full"]
    meanwhile = f"{median(later):.1f} ms (most: {max(later):.1f})" if later else "not measured"
    return (
        f"## Three times the load\n\n{offered:,.0f} requests a second were due for "
        f"{part['overload_s']:g} s, three times what the replica answered at most, between "
        f"{part['calm_s']:g} s of half of it each. Answers: {statuses}; {failed(part)} that were "
        f"not answered well, {part['dropped']:,} that found none of the connections free. The 99th "
        f"percentile was back {words}. Meanwhile it was {meanwhile}, the median of the seconds "
        "after the first, whose burst is let in and waits as long as `limits.wait` allows; where "
        f"just as much is asked as can be answered, over {full['connections']} connections, it was "
        f"{at_full_load(part) or 0:.1f} ms. The host of the machine gave {share(part['stolen'])} "
        "of it to others meanwhile.\n\n"
        + table(("second", "answered", "refused", "p99, ms"), lines)
    )
