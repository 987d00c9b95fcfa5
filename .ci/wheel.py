"""Use an installed wheel as somebody would who has nothing else: python wheel.py REPOSITORY.

In an empty folder, with the interpreter of the environment that the wheel is installed in.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import subprocess
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import holdtrue

_ANSWERS_WITHIN_S = 60.0
_COMMANDS_END_WITHIN_S = 600.0


def main() -> None:
    """See that all is there and can be imported; then take a table from a file to an endpoint.

    Raises:
        AssertionError: Something is not in the wheel, or does not work from there.
        CalledProcessError: A command failed.
    """
    files = importlib.metadata.files("holdtrue") or []
    folders = {file.parts[0] for file in files} - {"..", "holdtrue"}
    others = [name for name in folders if not name.endswith(".dist-info")]
    assert not others, f"the wheel has {others}, too, which other wheels may have"
    installed = Path(holdtrue.__path__[0])
    assert not installed.is_relative_to(sys.argv[1]), f"{installed} is not the wheel's"
    tracked = subprocess.check_output(  # noqa: S603 - our own repository
        ["git", "-C", sys.argv[1], "ls-files", "holdtrue"],  # noqa: S607
        text=True,
    )
    names = tracked.splitlines()
    missing = [name for name in names if not (installed.parent / name).is_file()]
    assert names, f"no files of holdtrue are tracked in {sys.argv[1]}"
    assert not missing, f"the wheel lacks {', '.join(missing)}"
    other = [
        name
        for name in names
        if (installed.parent / name).read_bytes() != Path(sys.argv[1], name).read_bytes()
    ]
    assert not other, f"not the same in the wheel: {', '.join(other)}"
    _application(Path(sys.argv[1]), installed / "_application")
    for module in pkgutil.walk_packages(holdtrue.__path__, "holdtrue."):
        importlib.import_module(module.name)
    _live()
    sys.stdout.write("The wheel is complete, and works by itself\n")


def _application(repository: Path, installed: Path) -> None:
    """See that what `holdtrue new` lays out is the repository's."""
    tracked = subprocess.check_output(  # noqa: S603 - our own repository
        ["git", "-C", repository, "ls-files", "flows", "tasks", "deployments", "prefect.yaml"],  # noqa: S607
        text=True,
    ).splitlines()
    there = [str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()]
    assert sorted(there) == sorted(tracked), f"the application in the wheel is {sorted(there)}"
    other = [p for p in tracked if (installed / p).read_bytes() != (repository / p).read_bytes()]
    assert not other, f"not the same in the wheel: {', '.join(other)}"


def _live() -> None:
    """What the README tells one to do with a table of one's own."""
    from sklearn.datasets import load_breast_cancer

    rows = load_breast_cancer(as_frame=True).frame
    rows.to_csv("cells.csv", index=False)
    _run("init", "cells.csv", "--target", "target")
    _run("new", "cells.yaml")
    try:
        up = json.loads(_run("up", "--json"))
        _run("apply", "cells.yaml")
        states = [run["state"]["type"] for run in _flow_runs(up) if not run["auto_scheduled"]]
        assert states == ["COMPLETED"], f"the flow run of apply: {states}"
        score = _ask(rows.drop(columns="target").iloc[0].to_dict())
        assert 0 <= score <= 1, f"a probability is {score}"
        _run("predict", "cells.yaml", "cells.csv", "--output", "scores.csv")
    finally:
        _run("down")
    n_scores = len(Path("scores.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert n_scores == len(rows), f"{n_scores} of {len(rows)} rows were scored"


def _ask(row: dict[str, float]) -> float:
    key = _run("key", "show").strip()
    request = urllib.request.Request(
        "http://127.0.0.1:8700/cells/predict",
        json.dumps(row).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(  # noqa: S310 - the address is above
        request, timeout=_ANSWERS_WITHIN_S
    ) as answer:
        said = json.load(answer)
    sys.stdout.write(f"{said}\n")
    return float(said["predictions"][0]["probabilities"]["1"])


def _flow_runs(up: dict[str, str]) -> list[dict[str, Any]]:
    request = urllib.request.Request(  # noqa: S310 - on this machine
        f"{up['prefect_ui']}/api/flow_runs/filter",
        b"{}",
        {
            "Authorization": f"Basic {b64encode(up['prefect_password'].encode()).decode()}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(  # noqa: S310 - on this machine
        request, timeout=_ANSWERS_WITHIN_S
    ) as answer:
        return list(json.load(answer))


def _run(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("holdtrue")), *arguments]
    done = subprocess.run(  # noqa: S603 - our own program
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=_COMMANDS_END_WITHIN_S
    )
    return done.stdout


if __name__ == "__main__":
    main()
