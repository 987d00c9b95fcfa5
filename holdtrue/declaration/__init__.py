"""The YAML file as frozen, typed models."""

from __future__ import annotations

from holdtrue.declaration._batch import Batch, ToDelta
from holdtrue.declaration._changes import Change, changes
from holdtrue.declaration._data import (
    Bounds,
    ColumnContract,
    Contract,
    Data,
    Database,
    Delta,
    Source,
)
from holdtrue.declaration._draft import draft
from holdtrue.declaration._features import Features
from holdtrue.declaration._loader import Loaded, Places, load, load_layers, parse
from holdtrue.declaration._models import (
    Declaration,
    Evaluate,
    Gate,
    Keep,
    Monitor,
    Performance,
    Ray,
    Retrain,
    Watched,
)
from holdtrue.declaration._schema import json_schema, write_schema
from holdtrue.declaration._search import Candidate, Cost, Model, Pruner, Range, Stop, Tune
from holdtrue.declaration._section import DEFAULT_METRICS, METRICS, Metric, Section
from holdtrue.declaration._serve import Limits, Replicas, Rollout, Serve
from holdtrue.declaration._spans import (
    combinations,
    is_active,
    ordered,
    unfit_conditions,
    values_of,
)
from holdtrue.declaration._steps import OUT, Step, fill, needed
from holdtrue.declaration._values import (
    Duration,
    Rate,
    Share,
    Size,
    format_duration,
    format_share,
    format_size,
    parse_duration,
    parse_moment,
    parse_share,
    parse_size,
)

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "OUT",
    "Batch",
    "Bounds",
    "Candidate",
    "Change",
    "ColumnContract",
    "Contract",
    "Cost",
    "Data",
    "Database",
    "Declaration",
    "Delta",
    "Duration",
    "Evaluate",
    "Features",
    "Gate",
    "Keep",
    "Limits",
    "Loaded",
    "Metric",
    "Model",
    "Monitor",
    "Performance",
    "Places",
    "Pruner",
    "Range",
    "Rate",
    "Ray",
    "Replicas",
    "Retrain",
    "Rollout",
    "Section",
    "Serve",
    "Share",
    "Size",
    "Source",
    "Step",
    "Stop",
    "ToDelta",
    "Tune",
    "Watched",
    "changes",
    "combinations",
    "draft",
    "fill",
    "format_duration",
    "format_share",
    "format_size",
    "is_active",
    "json_schema",
    "load",
    "load_layers",
    "needed",
    "ordered",
    "parse",
    "parse_duration",
    "parse_moment",
    "parse_share",
    "parse_size",
    "unfit_conditions",
    "values_of",
    "write_schema",
]
