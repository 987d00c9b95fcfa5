"""The measurements of the searches as a page of Markdown."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks._markdown import MB, of_parts, share, table, targets_of
from benchmarks.tuning._parts import OURS, PARTS, RAY_TUNE
from benchmarks.tuning._targets import left_s, medians, targets, times, worse_by_pruning

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = (
    *("", "wall, s", "trials/s", "efficiency", "of what others left", "overhead, CPU ms a trial"),
    *("others took", "peak memory, MB", "best"),
)


def page(found: dict[str, Any]) -> str:
    """The page.

    Args:
        found: What `benchmarks.tune` has measured, with the parts there are.
    """
    parts = found["parts"]
    written = {
        "real": _real,
        "own": _own,
        "tiny": _tiny,
        "parallel": _parallel,
        "prune": _prune,
        "long": _long,
        "warm": _warm,
        "scale": _scale,
    }
    sections = [write(parts[part]) for part, write in written.items() if part in parts]
    return "\n".join(
        [
            "# Searches: how fast, and how good\n",
            _about(found),
            targets_of(targets(parts)),
            *sections,
        ]
    )


def _about(found: dict[str, Any]) -> str:
    size = found["size"]
    return (
        f"{of_parts('make bench-tune', found, PARTS)}\n"
        f"A real trial trains XGBoost, {size['rounds']} rounds on one thread, on four fifths of "
        f"{size['rows']:,} flights with 30 columns, and is judged by the logarithmic loss on the "
        f"others; ten parameters are searched. A tiny trial computes for {size['tiny_s'] * 1000:g} "
        "ms without giving the interpreter away. Everybody runs the same function, two trials at a "
        "time, on processes that have started, loaded their libraries and binned the rows before "
        "the time begins.\n\n"
        "Efficiency: the CPU time of the trials alone, divided by wall time on both cores. Others "
        "took: the share of the machine that processes outside the search had meanwhile; **bold** "
        "above 10 %, where wall times say little. Comparisons are by wall time times the share "
        "that others left. Overhead: CPU time of all processes of the search that is not the "
        "trials'. Memory: of all processes, each page divided by the number that share it, looked "
        f"at every 2 s. Numbers are medians of the repeats ({size['repeats']}), which take turns.\n"
    )


def _real(part: dict[str, Any]) -> str:
    fixed = medians(part["runs"])
    return (
        f"## {part['runs'][0]['trials']} real trials\n\nThe same settings for all:\n\n"
        f"{_table(fixed)}\n{_limit(fixed)}\n\n"
        "Ray Tune starts its actors with each search, which is in its time; as `running` it is "
        "measured from when they have run two trials each.\n"
    )


def _own(part: dict[str, Any]) -> str:
    own = part["runs"]
    spread = table(
        ("", "best log loss, median", "lowest", "highest", "seeds"),
        [
            (
                name,
                f"{statistics.median(best):.4f}",
                f"{min(best):.4f}",
                f"{max(best):.4f}",
                str(len(best)),
            )
            for name, best in _bests(own).items()
        ],
    )
    free, ordered = (medians(own)[name]["left_s"] for name in (OURS, "holdtrue, deterministic"))
    return (
        f"## {own[0]['trials']} real trials, chosen by each search\n\n"
        f"Each with TPE of its own, a seed each time:\n\n{_table(medians(own))}\n{spread}\n"
        "HalvingRandomSearchCV has a schedule of its own: it draws as many settings, gives each a "
        "ninth of the rounds, and trains the best third again with three times as many, twice; it "
        "does not know which trial took how much CPU time. Its trials/s count every training.\n\n"
        f"`deterministic` takes {ordered / free:.2f} times the time of the free search.\n"
    )


def _limit(fixed: dict[str, Any]) -> str:
    """What the best of the peers could be, whatever runs the trials."""
    said = (
        "The process pool chooses nothing and hands the settings out in their order: the limit of "
        "whoever keeps to that. So do all but ours, which begins the last ones with those that it "
        "expects to take longest, by what the others took."
    )
    for name in (OURS, *RAY_TUNE):
        if {name, "process pool"} <= fixed.keys():
            said += f" {name} is {times(fixed, name, 'process pool'):.2f} times as fast."
    return said.replace(f" {OURS} is", " Ours is")


def _bests(runs: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    names = dict.fromkeys(run["name"] for run in runs)
    return {name: [run["best"] for run in runs if run["name"] == name] for name in names}


def _tiny(part: dict[str, Any]) -> str:
    trials, few = (int(part[key][0]["trials"]) for key in ("many", "few"))
    ours, tune = (medians(part["few"])[name] for name in (OURS, RAY_TUNE[0]))
    bound = (
        f"With no overhead at all, these {few} trials would be "
        f"{tune['left_s'] / (ours['trials_cpu_s'] / ours['workers']):.1f} times as fast as with "
        "Ray Tune.\n"
    )
    tables = [
        f"{words}:\n\n{_table(medians(part['many'], sampler))}"
        for sampler, words in {
            "fixed": "The same settings for all",
            "random": "Random ones",
            "tpe": "By TPE",
        }.items()
    ]
    return (
        f"## {trials} tiny trials\n\n" + "\n".join(tables) + f"\nThe first {few}, with Ray Tune "
        f"(all {trials} would take it minutes):\n\n{_table(medians(part['few']))}\n{bound}"
    )


def _parallel(part: dict[str, Any]) -> str:
    rows = [
        (name, f"{one['wall_s']:.2f}", f"{one['finished'] / one['wall_s']:.2f}")
        for name, one in medians(part["runs"]).items()
    ]
    first = part["runs"][0]
    return (
        f"## Eight workers\n\n{first['trials']} trials that sleep for {first['tiny_s']:g} s and "
        "need no core, on a Ray with room for one or for eight.\n\n"
        f"{table(('', 'wall, s', 'trials/s'), rows)}"
    )


def _prune(part: dict[str, Any]) -> str:
    runs = medians(part["runs"])
    rows = [
        (
            name,
            f"{one['wall_s']:.1f}",
            share(one["foreign"]),
            f"{one['trials_cpu_s']:.1f}",
            f"{one['pruned']:.0f} of {one['finished']:.0f}",
            f"{one['best']:.4f}",
            "" if name == "none" else f"{worse_by_pruning(part['runs'], name):+.4f}",
        )
        for name, one in runs.items()
    ]
    head = (
        *("rule", "wall, s", "others took", "CPU of the trials, s", "ended early"),
        *("best log loss", "worse by (median of pairs)"),
    )
    return (
        f"## Ending trials early\n\nOur search by TPE, {int(next(iter(runs.values()))['runs'])} "
        f"seeds, trained as a declaration has it.\n\n{table(head, rows)}"
    )


def _long(part: dict[str, Any]) -> str:
    pasts = list(dict.fromkeys(ask["past"] for ask in part["asks"]))
    names = dict.fromkeys(ask["name"] for ask in part["asks"])
    cost = {(ask["name"], ask["past"]): ask["median_ms"] for ask in part["asks"]}
    rows = [(name, *(f"{cost[name, past]:.1f}" for past in pasts)) for name in names]
    whole = part["whole"]
    head = ("CPU ms to ask after", *(f"{past:,} trials" for past in pasts))
    return (
        f"## Long searches\n\nTen parameters, TPE, each ask after another trial was told.\n\n"
        f"{table(head, rows)}\nA whole search of {whole['trials']:,} tiny trials by TPE took "
        f"{whole['wall_s']:.0f} s (others took {share(whole['foreign'])}), with an efficiency of "
        f"{whole['efficiency_of_left']:.2f} of what others left.\n"
    )


def _warm(part: dict[str, Any]) -> str:
    rows = []
    for name, pairs in part["sets"].items():
        gains = [pair["cold"] - pair["warm"] for pair in pairs]
        early = [pair["cold"] - pair["cold_early"] for pair in pairs]
        unseen = [pair["cold_unseen"] - pair["warm_unseen"] for pair in pairs]
        rows.append(
            (
                name,
                f"{sum(gain >= 0 for gain in gains)} of {len(gains)}",
                f"{sum(gain >= 0 for gain in early)} of {len(gains)}",
                f"{statistics.median(pair['cold'] for pair in pairs):.4f}",
                _mean(gains),
                _mean(early),
                f"{sum(gain >= 0 for gain in unseen)} of {len(unseen)}",
                f"{statistics.median(pair['cold_unseen'] for pair in pairs):.4f}",
                _mean(unseen),
            )
        )
    head = (
        *("rows", "warm as good or better", "cold as good after as few", "best of all cold trials"),
        *("warm better by, mean", "cold after as few better by"),
        *("unseen: warm as good or better", "cold's setting", "warm's better by, mean"),
    )
    return (
        f"## Warm start\n\nThe best of the first 30 % of the trials of a search that knows an "
        f"earlier one, beside the best of all {part['trials']} trials of a search that knows none. "
        "The earlier one had as many trials and other rows: flights of January to March before "
        "those of April to June, or another two fifths of the set. XGBoost, three folds, "
        "logarithmic loss (diabetes: root mean squared error); smaller is better. The best of more "
        "trials on the same folds is lower also by chance, so the settings that were chosen are "
        "also fitted on all of the later rows and judged on rows that no search saw. Means are "
        "over the seeds, with Student's 95 % interval.\n\n"
        f"{table(head, rows)}"
    )


def _mean(differences: list[float]) -> str:
    from scipy.stats import t

    count = len(differences)
    mean = statistics.fmean(differences)
    if count < 2:
        return f"{mean:+.4f}"
    half = t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5
    return f"{mean:+.4f} ± {half:.4f}"


def _scale(part: dict[str, Any]) -> str:
    rows = [
        (f"{run['rows']:,}", run["name"], f"{run['peak_bytes'] / MB:.0f}", f"{left_s(run):.1f}")
        for run in part["runs"]
    ]
    peaks = [run["peak_bytes"] for run in part["runs"]]
    more = [(many - one) / 7 / MB for one, many in zip(peaks[::2], peaks[1::2], strict=True)]
    return (
        "## Memory of several trials at a time\n\nOur search on a Ray with room for eight, "
        "trained as a declaration has it, whatever the cores: all its processes, Ray's own "
        "included.\n\n"
        + table(("rows", "trials", "peak memory, MB", "wall of what others left, s"), rows)
        + f"\nA trial more at a time takes {' or '.join(f'{one:.0f}' for one in more)} MB: what "
        "does not grow with the rows is a process and its libraries.\n"
    )


def _table(runs: dict[str, Any]) -> str:
    return table(_HEAD, [_line(name, one) for name, one in runs.items()])


def _line(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    known = "efficiency" in one
    return (
        name,
        f"{one['wall_s']:.1f}",
        f"{one['finished'] / one['wall_s']:.2f}",
        f"{one['efficiency']:.2f}" if known else "",
        f"{one['efficiency_of_left']:.2f}" if known else "",
        f"{one['overhead_ms']:.1f}" if known else "",
        share(one["foreign"]),
        f"{one['peak_bytes'] / MB:.0f}",
        f"{one['best']:.4f}",
    )
