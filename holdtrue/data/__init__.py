"""Sources, snapshots, the contract and the split."""

from holdtrue.data._contract import (
    broken_contract,
    check_frame,
    class_names,
    refuse_unusable,
    write_check,
)
from holdtrue.data._files import list_files, read_file, together
from holdtrue.data._kinds import as_frame, as_table, kind_of, kinds_compatible, kinds_of
from holdtrue.data._snapshots import is_removed, load_snapshot, table_digest, take_snapshot
from holdtrue.data._sources import (
    check_source,
    code_of,
    fingerprint,
    import_from,
    read_source,
    reads,
    require_columns,
    require_features,
)
from holdtrue.data._split import split_frame, write_split

__all__ = [
    "as_frame",
    "as_table",
    "broken_contract",
    "check_frame",
    "check_source",
    "class_names",
    "code_of",
    "fingerprint",
    "import_from",
    "is_removed",
    "kind_of",
    "kinds_compatible",
    "kinds_of",
    "list_files",
    "load_snapshot",
    "read_file",
    "read_source",
    "reads",
    "refuse_unusable",
    "require_columns",
    "require_features",
    "split_frame",
    "table_digest",
    "take_snapshot",
    "together",
    "write_check",
    "write_split",
]
