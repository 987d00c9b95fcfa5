"""A first declaration from a file and a target: a start to be read and changed."""

from __future__ import annotations

import glob
import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdtrue.declaration._mistakes import nearest
from holdtrue.declaration._yaml import is_text
from holdtrue.errors import ConfigError, DataError, SourceError, meant_file

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

MAX_ROWS = 200_000
MAX_CLASSES = 20
# Above this, the values of a text column are names or sentences rather than categories.
MAX_LEVELS = 200
MAX_TEXT_CLASSES = 100
_SLICE_LEVELS = 10
_LINE = 96
_COUNTS = "numbers the rows"
_NEEDED = "needs data.key and data.time"
# Of fewer rows a column may be a number for each by chance.
_FEW = 10

_ISO_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?Z|[+-]\d{2}:?\d{2})?)?"
)
# Dates in another order, or with other signs between: which is the month is not known.
_DATE_LIKE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ,]+\d{1,2}:\d{2}.*)?")
# Numbers with percent signs, currencies, commas; a code such as 00123 is none.
_NUMBER_LIKE = re.compile(
    r"\s*[€$£]?\s*[+-]?(?:\d{1,3}(?:[.,' ]\d{3})+|\d+)(?:[.,]\d+)?\s*(?:%|€|\$|£|EUR|USD)?\s*"
)
_WRITTEN_FOR_PEOPLE = re.compile(r"[%€$£,']")
_TIME_NAME = re.compile(
    r"(?:^|_)(?:time|timestamp|date|datetime|at|when|departure|created|event)(?:_|$)", re.I
)
_KEY_NAME = re.compile(r"(?:^|_)(?:id|key|uuid|guid)(?:_|$)|Id$|ID$", re.I)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*[A-Za-z0-9_]|[A-Za-z_]")


@dataclass
class _Columns:
    """What each column is good for."""

    time: str | None = None
    key: str | None = None
    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    temporal: list[str] = field(default_factory=list)
    exclude: dict[str, str] = field(default_factory=dict)
    """By name: why."""
    slices: list[str] = field(default_factory=list)


def draft(
    data: Path,
    target: str | None,
    *,
    name: str | None = None,
    files: Path | None = None,
    port: int = 8700,
) -> str:
    """Write the text of a first declaration for a file, with comments.

    Args:
        data: A .parquet, .csv, .csv.gz or .jsonl file; its first 200,000 rows are looked at.
        target: Name of the column to predict; None is refused with the columns that there are.
        name: Name of the system; made from the file's name where left out.
        files: Path of the file as the declaration should name it; `data` where left out.
        port: Of the endpoint.

    Returns:
        YAML text that `parse` accepts.

    Raises:
        ConfigError: The file cannot be read, the target is not one of its columns or cannot be
            predicted, or no column is left to learn from.
    """
    frame = _read(data)
    known = [str(column) for column in frame.columns]
    if target is None:
        message = "the column to predict is not named"
        raise ConfigError(message, hint=f"give it by --target; columns: {', '.join(known)}")
    if target not in frame.columns:
        message = f"{data}: {target} is not a column"
        raise ConfigError(message, hint=f"{nearest(target, known)}columns: {', '.join(known)}")
    goal = frame[target].dropna()
    classes = _classes(goal, f"{data}: {target}")
    columns = _sort_out(frame.drop(columns=[target]), str(data))
    system = name if name is not None else _slug(data.name.split(".")[0])
    return "\n".join(
        [
            *_head(system, files or data, goal, classes, columns, len(frame)),
            *_tail(goal, classes, columns, port),
            "",
        ]
    )


def _read(data: Path) -> pd.DataFrame:
    """Read the file as `apply` will, so that both see the same kinds of columns."""
    from holdtrue.data import as_frame, as_table, kinds_of, read_file

    if not data.is_file():
        message = f"{data}: no such file{meant_file(data)}"
        raise ConfigError(message, hint="give a .parquet, .csv, .csv.gz or .jsonl file")
    try:
        table = as_table(read_file(data).slice(0, MAX_ROWS), str(data))
    except (DataError, SourceError) as err:
        raise ConfigError(err.message, hint=err.hint) from err
    if len(table) == 0:
        message = f"{data}: has no rows"
        raise ConfigError(message)
    return as_frame(table, kinds_of(table))


def _classes(goal: pd.Series, place: str) -> int | None:
    """The number of classes, or None where the target is a quantity."""
    import pandas as pd

    distinct = goal.nunique()
    if distinct < 2:
        message = (
            f"{place} has {'one value' if distinct else 'no values'}; there is nothing to predict"
        )
        raise ConfigError(message, hint="choose a target with at least two different values")
    if pd.api.types.is_datetime64_any_dtype(goal):
        message = f"{place} is a time; it can be neither a class nor a quantity"
        raise ConfigError(message, hint="make a number of it, such as the days until then")
    if distinct <= MAX_CLASSES or pd.api.types.is_bool_dtype(goal):
        return int(distinct)
    if pd.api.types.is_numeric_dtype(goal):
        return None
    if distinct > MAX_TEXT_CLASSES and _are_numbers(goal):
        message = f"{place} has numbers as text, such as {goal.dropna().iloc[0]}"
        raise ConfigError(message, hint="write them as 1234.5")
    if distinct > MAX_TEXT_CLASSES:
        message = f"{place} has {distinct:,} different texts; it is neither a class nor a quantity"
        raise ConfigError(
            message, hint=f"choose a target with at most {MAX_TEXT_CLASSES} classes, or a number"
        )
    return int(distinct)


def _sort_out(frame: pd.DataFrame, place: str) -> _Columns:
    """Decide what each column is good for."""
    import pandas as pd

    columns = _Columns()
    for name in [name for name in frame.columns if not name.strip()]:
        # Such as the numbers of the rows that pandas writes first.
        columns.exclude[name] = "has no name; give it one in the file to use it"
        frame = frame.drop(columns=[name])
    times = [name for name in frame.columns if _is_time(frame[name])]
    if times:
        # The most complete, then the one that is called a time, then the first.
        columns.time = min(
            times, key=lambda name: (frame[name].isna().mean(), not _TIME_NAME.search(name))
        )
        for name in times:
            if name == columns.time:
                continue
            if frame[name].dtype.kind == "M":
                columns.temporal.append(name)
            else:
                columns.exclude[name] = "a time as text; make times of it in the source to learn"
    for name in frame.columns:
        if name not in times:
            _sort_one(frame[name], columns)
    if columns.key is None:
        # Nothing is called a key: what counts the rows tells them apart. A label's 1.0 would not be
        # a request's 1.
        counts = (n for n, why in columns.exclude.items() if why == _COUNTS)
        columns.key = next((n for n in counts if pd.api.types.is_integer_dtype(frame[n])), None)
        if columns.key is not None:
            del columns.exclude[columns.key]
    if not columns.numeric and not columns.categorical and not columns.temporal:
        message = f"{place}: no column is left to learn from"
        raise ConfigError(
            message, hint="; ".join(f"{name}: {why}" for name, why in columns.exclude.items())
        )
    return columns


def _are(values: pd.Series, like: re.Pattern[str]) -> bool:
    """Whether texts look alike, as far as the first thousand of them say."""
    return bool(values.dropna().head(1_000).astype(str).str.fullmatch(like).all())


def _are_numbers(values: pd.Series) -> bool:
    """Whether texts are numbers as people write them."""
    some = values.dropna().head(1_000).astype(str).str.contains(_WRITTEN_FOR_PEOPLE).any()
    return bool(some) and _are(values, _NUMBER_LIKE)


def _sort_one(values: pd.Series, columns: _Columns) -> None:
    import pandas as pd

    name = str(values.name)
    distinct = values.nunique()
    unique = distinct == len(values)
    number = pd.api.types.is_numeric_dtype(values)
    if distinct < 2:
        columns.exclude[name] = "always the same" if distinct else "always missing"
    elif not number and _are(values, _DATE_LIKE):
        columns.exclude[name] = (
            "dates to be written as 2013-07-01T13:00, then they are read as times"
        )
    elif not number and _are_numbers(values):
        columns.exclude[name] = "numbers to be written as 1234.5, then they are read as such"
    elif (
        unique
        and (_KEY_NAME.search(name) or not number)
        and not pd.api.types.is_float_dtype(values)
    ):
        if columns.key is None and _KEY_NAME.search(name):
            columns.key = name
        else:
            columns.exclude[name] = "different in every row"
    elif unique and _counts(values):
        columns.exclude[name] = _COUNTS
    elif number:
        columns.numeric.append(name)
    elif distinct > MAX_LEVELS:
        columns.exclude[name] = f"{distinct:,} different values"
    else:
        columns.categorical.append(name)
        if distinct <= _SLICE_LEVELS:
            columns.slices.append(name)


def _counts(values: pd.Series) -> bool:
    """Whether a column numbers the rows: one by one, in whatever order."""
    import pandas as pd

    whole = pd.api.types.is_integer_dtype(values) or (
        pd.api.types.is_float_dtype(values) and bool((values % 1 == 0).all())
    )
    return whole and len(values) >= _FEW and bool(values.max() - values.min() == len(values) - 1)


def _is_time(values: pd.Series) -> bool:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values):
        return bool(values.nunique() > 1)
    if pd.api.types.is_numeric_dtype(values):
        return False
    present = values.dropna()
    if present.empty or not all(
        isinstance(value, str) and _ISO_TIME.fullmatch(value) for value in present.head(1_000)
    ):
        return False
    parsed = pd.to_datetime(present, errors="coerce", utc=True, format="ISO8601")
    return bool(parsed.notna().all() and parsed.nunique() > 1)


def _head(
    system: str, data: Path, goal: pd.Series, classes: int | None, columns: _Columns, rows: int
) -> list[str]:
    """The lines up to the features."""
    target, files = str(goal.name), glob.escape(data.as_posix())
    task = "regression" if classes is None else "classification"
    lines = [
        f"name: {_word(system)}",
        f"description: {_word(f'Predict {target}.')}",
        f"task: {task}  # read from {goal.nunique():,} different values of the target",
        "",
        "data:",
        f"  source: {{files: {_word(files)}}}  # or python:, database:, delta:",
        f"  target: {_word(target)}",
    ]
    if columns.time is not None:
        lines.append(f"  time: {_word(columns.time)}  # orders the split and windows the monitor")
    if columns.key is not None:
        lines.append(
            f"  key: [{_word(columns.key)}]  # joins labels to predictions when they arrive"
        )
    lines += [
        "  labels_after: 1d  # how late the truth is known",
        "  contract:",
        f"    rows: {{min: {max(1, rows // 2)}}}  # half of what is here now",
        "",
        "features:  # only what is known at the moment of the prediction",
    ]
    lines += _list("numeric", columns.numeric)
    lines += _list("categorical", columns.categorical)
    if columns.temporal:
        lines += _list("temporal", columns.temporal)
    if columns.exclude:
        lines.append("  exclude:")
        lines += [
            f"    - {_word(column)}  # {reason}" for column, reason in columns.exclude.items()
        ]
    lines.append(
        "  # derive: {ratio: one / other}  # computed of columns, of those of requests too"
    )
    return lines


def _tail(goal: pd.Series, classes: int | None, columns: _Columns, port: int) -> list[str]:
    """The lines from the model on."""
    if classes is None:
        boosted, linear, space = (
            "xgboost.XGBRegressor",
            "Ridge",
            "alpha: {float: [1.0e-3, 1.0e+3], log: true}",
        )
        params, metric, guess = "", "rmse", "the mean"
    else:
        boosted, linear = "xgboost.XGBClassifier", "LogisticRegression"
        space, params, metric = (
            "C: {float: [1.0e-3, 1.0e+2], log: true}",
            "{max_iter: 1000}",
            "log_loss",
        )
        guess = "the shares of the classes"
    slices = ", ".join(_word(column) for column in columns.slices[:2])
    performance = f"performance: {{metric: {metric}, worse_than: 10%}}"
    return [
        "",
        "model:  # or, for the built-in candidates and spaces: `model: auto`",
        "  candidates:  # any scikit-learn compatible estimator by its import path",
        f"    - estimator: {boosted}",
        "      space:",
        "        max_depth: {int: [3, 8]}",
        "        learning_rate: {float: [0.02, 0.3], log: true}",
        "        n_estimators: {int: [100, 400]}",
        f"    - estimator: sklearn.linear_model.{linear}",
        *([f"      params: {params}"] if params else []),
        "      space:",
        f"        {space}",
        "",
        f"tune: {{metric: {metric}, trials: 20, timeout: 10m, folds: 3}}",
        "",
        "evaluate:",
        f"  test: 20%  # {'the latest rows' if columns.time else 'rows'} that are never tuned on",
        *([f"  slices: [{slices}]"] if slices else []),
        "",
        "promote:  # all must hold before a model is served",
        f"  - {{metric: {metric}, better_than: baseline}}  # than always answering {guess}",
        f"  - {{metric: {metric}, better_than: champion}}",
        "",
        f"serve: {{port: {port}, capture: 100%}}",
        "",
        "monitor:",
        "  every: 1h",
        "  window: 1d",
        "  false_alarms: 1 per 30d  # the alarm is calibrated to keep this",
        f"  {performance}" if columns.time and columns.key else f"  # {performance}  # {_NEEDED}",
    ]


def _list(key: str, names: list[str]) -> list[str]:
    """A list of columns, broken over lines."""
    lines = [f"  {key}: ["]
    for index, name in enumerate(names):
        word = _word(name) + ("," if index < len(names) - 1 else "")
        if len(lines[-1]) + len(word) > _LINE:
            lines.append("    ")
        lines[-1] += word if lines[-1].endswith(("[", "    ")) else f" {word}"
    lines[-1] += "]"
    return lines


def _word(text: str) -> str:
    """Write text so that YAML reads it back as this text."""
    if _PLAIN.fullmatch(text) and is_text(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _slug(text: str) -> str:
    """Make a system's name of a file's name."""
    letters = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:48].strip("-")
    return slug if re.match("[a-z]", slug) else f"model-{slug}".strip("-")[:48]
