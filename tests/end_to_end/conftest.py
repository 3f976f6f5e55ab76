"""One finished run and one that was stopped serve every test that only looks at them."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

pytest.register_assert_rewrite("command_line")

from command_line import CommandLine, Ended, signal_at  # noqa: E402

AWKWARD = 'it\'s "done"; rm -rf $HOME é'
"""A folder name that a shell would stumble over."""


@pytest.fixture(scope="session", autouse=True)
def _settled() -> None:
    """Take what libraries made out of the garbage collector's sight: every run asks it to look through everything."""
    import datasets  # noqa: F401
    import peft  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture
def subspace(tmp_path: Path) -> CommandLine:
    """The command line in an empty folder."""
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line in the folder where the shared runs are made."""
    return CommandLine(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def trained(shop: CommandLine) -> tuple[Path, Ended]:
    """A finished LoRA run, and what its command said."""
    recipe = shop.recipe({"training": {"output_dir": AWKWARD, "max_steps": 3}}, "finished.yaml")
    return shop.folder / AWKWARD, shop("train", recipe)


@pytest.fixture(scope="session")
def finished(trained: tuple[Path, Ended]) -> Path:
    """A finished LoRA run; only to be looked at."""
    return trained[0]


@pytest.fixture
def own_run(finished: Path, subspace: CommandLine) -> Path:
    """A copy of the finished run in the test's folder."""
    subspace.recipe()  # and the rows that the run reads
    return shutil.copytree(finished, subspace.folder / "run")


@pytest.fixture(scope="session")
def stopped_once(shop: CommandLine) -> Path:
    """A run with two checkpoints that SIGTERM stopped at step 3 of 4; only to be copied."""
    recipe = shop.recipe({"training": {"output_dir": "stopped", "max_steps": 4, "save_steps": 2}}, "stopped.yaml")
    with signal_at(3):
        ended = shop.end("train", recipe)
    assert ended.status == 75
    return shop.folder / "stopped"


@pytest.fixture
def stopped(stopped_once: Path, subspace: CommandLine) -> Path:
    """A copy of the stopped run in the test's folder."""
    subspace.recipe()
    return shutil.copytree(stopped_once, subspace.folder / "stopped")
