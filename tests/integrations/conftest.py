"""A Trainer collects garbage when it begins: what the imports left is set apart, or each would look through it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _imports_set_apart() -> Iterator[None]:
    import transformers.trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
