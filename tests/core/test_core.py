"""Errors travel, registries load lazily and suggest, seeds are independent, units read back."""

from __future__ import annotations

import doctest
import importlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.core import errors, registry, seeding, units


@pytest.mark.parametrize("name", ["errors", "registry", "seeding", "units"])
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"subspace.core.{name}")
    assert doctest.testmod(module).failed == 0


def test_an_error_says_where_what_and_how() -> None:
    error = errors.ConfigError("E-CFG-009", where="a.yaml:3:lr", found="-1", expected="(0, 1]", action="Raise it.")
    assert str(error) == "E-CFG-009 a.yaml:3:lr: -1; expected (0, 1]. Raise it."
    assert error.exit_status == 2


def test_an_unlisted_code_is_refused() -> None:
    with pytest.raises(KeyError):
        errors.DataError("E-DAT-999", where="", found="")


def test_errors_cross_processes() -> None:
    error = errors.DataError("E-DAT-001", where="x", found="y", action="Do z.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code) == (errors.DataError, str(error), "E-DAT-001")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    for name in errors.__all__:
        value = getattr(errors, name)
        if isinstance(value, type):
            assert name in (errors.__doc__ or "")


def test_registry_loads_and_suggests() -> None:
    table = registry.Registry("codec", {"base64": "base64:b64encode"})
    assert table.load("base64")(b"a") == b"YQ=="
    with pytest.raises(errors.ConfigError, match=r"unknown codec 'bas64'.*Did you mean 'base64'\?"):
        table.load("bas64")


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 1000))
def test_derived_seeds_do_not_meet(seed: int, one: int, other: int) -> None:
    first = seeding.derive_seed(seed, "order", one)
    assert 0 <= first < 2**63
    assert (first == seeding.derive_seed(seed, "order", other)) == (one == other)
    assert first != seeding.derive_seed(seed, "step", one)


def test_labels_are_not_run_together() -> None:
    assert seeding.derive_seed(1, "ab", "c") != seeding.derive_seed(1, "a", "bc")


@given(st.integers(0, 2**50))
def test_bytes_read_back(number: int) -> None:
    assert units.parse_bytes(f"{number}B") == number


@pytest.mark.parametrize("text", ["", "4 apples", "-3GB", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match=r"E-CLI-001 size: .*expected a size such as 4GB or 800M\.$"):
        units.parse_bytes(text)


@pytest.mark.parametrize("text", ["4", " 1.5 "])
def test_a_size_without_a_unit_is_refused_with_a_guess(text: str) -> None:
    with pytest.raises(errors.UsageError, match=rf"E-CLI-001 --vram: .*without a unit.*mean {text.strip()}GB\?"):
        units.parse_bytes(text, where="--vram")
