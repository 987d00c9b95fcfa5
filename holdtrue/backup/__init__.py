"""Backups of a store, in a folder or in object storage, and a store made again from one.

Whoever keeps several stores gives each a target of its own. From Python::

    back_up(Store.of(Path("flights.yaml")), "s3://backups/flights", keep=30)
"""

from holdtrue.backup._backup import Made, back_up
from holdtrue.backup._manifest import Backup, backups_at
from holdtrue.backup._restore import Restored, prove, restore
from holdtrue.backup._target import Target

__all__ = [
    "Backup",
    "Made",
    "Restored",
    "Target",
    "back_up",
    "backups_at",
    "prove",
    "restore",
]
