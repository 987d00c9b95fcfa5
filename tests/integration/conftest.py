"""A stack with a store of its own, for a whole file of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from holdtrue.serving._app import MODULES_VARIABLE
from holdtrue.stack import Stack
from holdtrue.stack._processes import _runs
from holdtrue.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def stack(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With Ray; nothing of it is left when the file is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv(MODULES_VARIABLE, "1")
        stack = Stack(store)
        try:
            stack.up_ray()
            yield stack
        finally:
            leaders = [psutil.Process(info.pid) for info in stack.state().processes]
            family = [p for one in leaders for p in (one, *one.children(recursive=True))]
            stack.down()
            assert not [process for process in family if _runs(process)]
