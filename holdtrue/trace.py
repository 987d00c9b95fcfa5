"""Where one prediction comes from, and whether its model gives the same score now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from holdtrue.declaration import format_duration
from holdtrue.errors import ConfigError, ServingError
from holdtrue.lineage import records_of
from holdtrue.models._manifest import read_manifest, read_signature
from holdtrue.models._served import ServedModel
from holdtrue.origin import Origin
from holdtrue.plan import BY_NAME, graph_of
from holdtrue.plan._digest import code_digest, differences
from holdtrue.plan._plan import _rooms
from holdtrue.references import Digest, Reference, Snapshot
from holdtrue.registry import Registry
from holdtrue.removed import pruned_at
from holdtrue.serving import capture_places
from holdtrue.serving._capture import time_of
from holdtrue.serving._fold import ANSWERED, BATCH, find_captured
from holdtrue.serving._log import LogReader, line_text, log_folder
from holdtrue.serving._record import is_sampled

if TYPE_CHECKING:
    from holdtrue.declaration import Declaration
    from holdtrue.plan._journal import Record
    from holdtrue.registry import RegisteredVersion
    from holdtrue.store import Store


class Recomputed(Reference):
    """What the same version says to the same row now."""

    scores: tuple[float, ...]
    identical: bool
    """Whether every bit is the same."""
    difference: float
    """The largest."""


class Beside(Reference):
    """What a shadow said to the same row; it was not the answer."""

    version: int
    classes: tuple[str, ...] | None = None
    scores: tuple[float, ...]
    decided: str | None


class TracedModel(Reference):
    """The version that answered."""

    version: int
    digest: Digest
    """Of the bundle's manifest, which has one of each of its files."""
    bundle: str
    """Folder of the bundle, relative to the store."""
    measured: str
    """The bundle that the gates judged; another one where it was refitted."""
    estimator: str
    params: dict[str, Any]
    trained_as_of: datetime
    registered: datetime
    reason: str
    """Why it was made, and what the gates said."""
    packages: dict[str, str]
    """Versions of what it was made with."""
    origin: Origin | None
    """Where the project was in Git; None where it was not."""


class Trace(Reference):
    """One prediction and all that led to it."""

    id: str
    system: str
    received: datetime
    event_time: datetime | None
    role: str
    """Of the version, in this answer: champion or challenger; batch where nobody had asked."""
    key: dict[str, Any]
    row: dict[str, Any]
    classes: tuple[str, ...] | None
    scores: tuple[float, ...]
    """Probabilities in the order of the classes, or the one predicted value."""
    decided: str | None
    """The class that was answered."""
    interval: tuple[float, float] | None
    """That was answered with the value; None where none is declared."""
    recomputed: Recomputed
    shadow: Beside | None
    model: TracedModel
    data: Snapshot | None
    """What was extracted for the training; None where the store does not know it any more."""
    pruned: datetime | None
    """When retention removed those rows; None where they are there."""
    declared: dict[str, dict[str, Any]]
    """What the declaration said then, by step."""
    declared_since: tuple[str, ...]
    """What it says otherwise now."""
    code: dict[str, Digest]
    """Digest of the code of each step."""
    code_since: tuple[str, ...]
    """The steps whose code is another one now."""


def trace(store: Store, declaration: Declaration, name: str) -> Trace:
    """Find a prediction, and compute it again.

    Args:
        store: Of the project.
        declaration: Of the system that answered.
        name: The id that came with the answer.

    Raises:
        ConfigError: This is no id of a prediction.
        ServingError: The prediction is not known, says why that may be; or the model that gave it
            is damaged.
        RegistryError: The registry does not know the version.
    """
    if time_of(name) is None:
        message = f"{name[:100]} is no id of a prediction"
        raise ConfigError(message, hint="each answer has them, in `ids`")
    system = declaration.name
    found = find_captured(*capture_places(store, system), name).to_pylist()
    answers = [record for record in found if record["role"] in (*ANSWERED, None)]
    if not answers:
        raise _not_found(store, declaration, name)
    answer = answers[0]
    shadow = next((record for record in found if record["role"] == "shadow"), None)
    version = Registry(store).version(system, answer["version"])
    model = ServedModel.load(store.path(version.bundle), version.digest)
    row = orjson.loads(answer["row"])
    records = records_of(store, version)
    graph = BY_NAME | graph_of(declaration)
    return Trace(
        id=name,
        system=system,
        received=answer["received"],
        event_time=answer["event_time"],
        role=answer["role"] or "champion",
        key=orjson.loads(answer["key"]),
        row=row,
        classes=model.signature.classes,
        scores=tuple(answer["scores"]),
        decided=answer["decided"],
        interval=_interval(model, answer["scores"]),
        recomputed=_recompute(model, row, answer["scores"]),
        shadow=shadow and _beside(store, system, shadow),
        model=_model(store, version),
        data=Snapshot.model_validate(records["extract"].output) if "extract" in records else None,
        pruned=pruned_at(store, version),
        declared={step: record.components["declared"] for step, record in records.items()},
        declared_since=_declared_since(declaration, records),
        code={step: record.components["code"] for step, record in records.items()},
        code_since=tuple(
            step
            for step, record in records.items()
            if step in graph and record.components["code"] != code_digest(_rooms(graph[step]))
        ),
    )


def trace_text(found: Trace) -> str:
    """Say what was found, for people."""
    model, again = found.model, found.recomputed
    same = "the same to the last bit" if again.identical else f"differs by {again.difference:.3g}"
    how, role = (
        ("scored", "in a batch") if found.role == BATCH else ("answered", f"the {found.role}")
    )
    lines = [
        f"{found.id}: {how} {_moment(found.received)} by version {model.version} of "
        f"{found.system}, {role}",
        f"answer: {_answer(found.scores, found.classes, found.decided)}"
        + ("" if found.interval is None else " (interval {} to {})".format(*found.interval)),
        f"computed again now: {same}",
    ]
    if found.shadow is not None:
        shadow = found.shadow
        said = _answer(shadow.scores, shadow.classes, shadow.decided)
        lines.append(f"the shadow, version {found.shadow.version}, said: {said}")
    if found.event_time is not None:
        lines.append(f"time of the event: {_moment(found.event_time)}")
    if found.key:
        lines.append(f"key: {_pairs(found.key)}")
    lines += [
        f"row: {_pairs(found.row)}",
        f"model: {model.estimator} with {_pairs(model.params)}",
        f"  registered {_moment(model.registered)}, data as of {_moment(model.trained_as_of)}",
        f"  {model.reason}",
        f"  bundle {model.bundle}, digest {model.digest}",
        *([] if model.measured == model.bundle else [f"  the gates judged {model.measured}"]),
        f"  {', '.join(f'{package} {number}' for package, number in model.packages.items())}",
    ]
    data = found.data
    if data is None:
        lines.append("data: not known any more")
    else:
        span = f" from {_moment(data.start)} to {_moment(data.end)}" if data.start else ""
        lines.append(f"data: version {data.version} of {data.table}, {data.rows:,} rows{span}")
        lines.append(f"  digest {data.digest}")
    if found.pruned is not None:
        lines.append(f"  removed by retention on {_moment(found.pruned)}")
    changed = "; ".join(found.declared_since) or "nothing that made this version"
    lines.append(f"declaration: changed since then: {changed}")
    if model.origin is not None:
        lines.append(f"commit: {model.origin}")
    code = (
        f"changed since then in {', '.join(found.code_since)}" if found.code_since else "the same"
    )
    lines.append(f"code: {code}; --json has the digests, and the declaration of then")
    return "\n".join(lines)


def _beside(store: Store, system: str, shadow: dict[str, Any]) -> Beside:
    version = Registry(store).version(system, shadow["version"])
    signature = read_signature(store.path(version.bundle), version.digest)
    said = {name: shadow[name] for name in ("version", "scores", "decided")}
    return Beside(classes=signature.classes, **said)


def _interval(model: ServedModel, scores: list[float]) -> tuple[float, float] | None:
    """What was answered with the value, where an interval is declared."""
    if model.signature.classes is not None:
        return None
    ends = model.answering.intervals(np.array(scores, dtype=np.float64))
    return None if ends is None else (float(ends[0, 0]), float(ends[0, 1]))


def _recompute(model: ServedModel, row: dict[str, Any], before: list[float]) -> Recomputed:
    """Score a row by each of the ways that the model has: any may have given the answer."""
    rows = model.encode([row])
    each = [model.predict(rows), *model.by_engine(rows)]
    answered = np.array(before, dtype=np.float64)
    candidates = [np.ravel(scores) for scores in each]
    best = min(candidates, key=lambda scores: float(np.max(np.abs(scores - answered))))
    return Recomputed(
        scores=tuple(best.tolist()),
        identical=best.tobytes() == answered.tobytes(),
        difference=float(np.max(np.abs(best - answered))),
    )


def _model(store: Store, version: RegisteredVersion) -> TracedModel:
    manifest = read_manifest(store.path(version.bundle), version.digest)
    return TracedModel(
        version=version.number,
        digest=version.digest,
        bundle=version.bundle,
        measured=version.measured_bundle,
        estimator=manifest["estimator"],
        params=manifest["params"],
        trained_as_of=version.as_of,
        registered=version.created,
        reason=version.reason,
        packages=manifest["versions"],
        origin=Registry(store).origin(version.system, version.number),
    )


def _declared_since(declaration: Declaration, records: dict[str, Record]) -> tuple[str, ...]:
    graph = BY_NAME | graph_of(declaration)
    said: dict[str, None] = {}
    for step, record in records.items():
        now = graph[step].reads(declaration) if step in graph else {}
        said |= dict.fromkeys(differences(record.components["declared"], now))
    return tuple(said)


def _not_found(store: Store, declaration: Declaration, name: str) -> ServingError:
    serve, made = declaration.serve, time_of(name) or 0.0
    message = f"{declaration.name} has no captured prediction {name}"
    lines = LogReader(log_folder(store, declaration.name)).new()
    said = [line_text(line) for line in lines if name in (line.get("ids") or ())]
    if said:
        return ServingError(f"{message}; the log says: {said[-1]}")
    age = datetime.now(UTC).timestamp() - made
    if not is_sampled(name, serve.capture):
        why = f"serve.capture is {serve.capture:.6g}, and this one is not among those that are kept"
    elif age > serve.keep.total_seconds():
        why = f"it is older than serve.keep: {format_duration(serve.keep)}"
    else:
        why = (
            "another system may have answered it, or it could not be written: "
            "`/ready` and `/metrics` count failures to capture"
        )
        if declaration.batch is not None:
            why += "; rows of an interval that is scored again are not captured a second time"
    return ServingError(message, hint=why)


def _answer(scores: tuple[float, ...], classes: tuple[str, ...] | None, decided: str | None) -> str:
    if classes is None:
        return f"{scores[0]!r}"
    each = (f"{name} {score!r}" for name, score in zip(classes, scores, strict=True))
    return f"{decided} ({', '.join(each)})"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {orjson.dumps(value).decode()}" for name, value in values.items())


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
