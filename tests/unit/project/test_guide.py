from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import get_args

import pytest

from holdtrue.declaration import Tune, load, parse
from holdtrue.declaration._search import PrunerRule

GUIDE = Path(__file__).parents[3] / "docs" / "guide"
# What an example leaves out.
REST = {
    "name": "flights",
    "task": "classification",
    "data": "{source: {files: flights.csv}, target: late, time: departure, key: [id]}",
    "model": "auto",
}
# What they refer to.
ENVIRONMENT = {
    "SHOP_DATABASE": "postgresql://reader@db.example.com/shop",
    "TEAM_CHAT": "slack://TokenA/TokenB/TokenC",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def examples(name: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", (GUIDE / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "name", sorted(path.name for path in GUIDE.glob("*.md") if "```yaml" in path.read_text())
)
def test_every_example_can_be_declared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(GUIDE.parents[1] / "configs" / "flights.yaml", tmp_path)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    found = examples(name)
    assert found
    for example in found:
        given = set(re.findall(r"^(\w+):", example, re.MULTILINE))
        if "extends" in given:
            (tmp_path / "example.yaml").write_text(example)
            load(tmp_path / "example.yaml")
            continue
        missing = [f"{key}: {value}\n" for key, value in REST.items() if key not in given]
        parse("".join(missing) + example, name)


def test_the_guide_names_every_rule() -> None:
    text = (GUIDE / "tuning.md").read_text()
    samplers = get_args(Tune.model_fields["sampler"].annotation)
    assert [word for word in (*samplers, *get_args(PrunerRule)) if f"`{word}`" not in text] == []
