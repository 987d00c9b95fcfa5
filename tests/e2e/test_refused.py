"""A first model that the gates refuse: nothing is served, and nothing is left running."""

from __future__ import annotations

import pytest

from holdtrue.stack import port_is_free

pytestmark = pytest.mark.e2e


def test_a_refused_first_model_leaves_nothing_up(new_project):
    project = new_project()
    declared = project.file.read_text()
    (gate,) = (line for line in declared.splitlines() if "roc_auc, at_least" in line)
    strict = gate[: gate.index("at_least")] + "at_least: 0.999}"
    project.file.write_text(declared.replace(gate, strict))

    project.run("apply", project.file, code=1)

    status = project.ask("status", project.file)
    assert (status["champion"], status["versions"], status["serving"]) == (None, 1, False)
    assert "roc_auc at least 0.999" in status["refused"]
    assert project.family() == []
    assert port_is_free(project.port)
    assert project.run("down").strip() == "nothing was up"
