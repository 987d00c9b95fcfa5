from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdtrue.models
import holdtrue.models.compiled

SCRIPT = """
import json, sys
from pathlib import Path
from holdtrue.models import Signature
from holdtrue.models.compiled import Compiled

folder = Path(sys.argv[1])
asked = json.loads((folder / "asked.json").read_text())
files = {path.name: path.read_bytes() for path in folder.iterdir()}
model = Compiled.read(files, Signature.model_validate(asked["signature"]))
matrix = model.encode(asked["records"]).matrix
columns = {name: [r[name] for r in asked["records"]] for name in asked["records"][0]}
assert (model.encode_columns(columns, len(matrix)).matrix[0] == matrix[0]).sum() > 0
answers = [model.scores(matrix, engine).tolist() for engine in model.engines or (None,)]
heavy = {"pandas", "sklearn", "xgboost", "prefect", "mlflow", "scipy", "onnx", "ray", "pyarrow"}
print(json.dumps({"answers": answers, "heavy": sorted(heavy & set(sys.modules))}))
"""


@pytest.mark.parametrize(
    "path", ["xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"]
)
def test_a_fresh_process_answers_without_what_trained_the_model(
    case: Any, tmp_path: Path, path: str
) -> None:
    made = case(path, "three")
    records = made.records[:20]
    for name, content in made.compiled.files().items():
        (tmp_path / name).write_bytes(content)
    asked = {"signature": made.signature.model_dump(mode="json"), "records": records}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["heavy"] == []
    wanted = made.compiled.scores(made.compiled.encode(records).matrix)
    for answers in said["answers"]:
        assert np.array_equal(np.array(answers), wanted)
    assert ran.stderr == ""


def test_every_public_name_is_found_and_an_unknown_one_is_not() -> None:
    for package in (holdtrue.models, holdtrue.models.compiled):
        assert all(getattr(package, name) is not None for name in package.__all__)
        assert sorted(package._HOMES) == sorted(package.__all__)
        with pytest.raises(AttributeError, match="nothing_like_it"):
            _ = package.nothing_like_it
