from __future__ import annotations

import subprocess
import sys

import pytest

# What costs a second or more, or belongs to the application around the engine.
HEAVY = {"pandas", "prefect", "prefect_ray", "ray", "sklearn", "whylogs", "xgboost"}


@pytest.mark.parametrize("module", ["holdtrue", "holdtrue.declaration", "holdtrue.errors"])
def test_light_imports_stay_light(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert HEAVY & set(done.stdout.split()) == set()
