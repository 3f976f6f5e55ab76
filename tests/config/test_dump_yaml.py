"""What is written is read back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subspace.config.guard import is_secret_key
from subspace.config.load import dump_yaml, parse_section, read_document
from subspace.training.config import TrainingConfig

# what no file can hold as text: NUL and halves of UTF-16 pairs
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WORDS = """
NO on yes y true null ~ 010 0o7 0x1F 1e4 1E-4 -.5 .inf .nan 1:30 1_000 2024-01-01 - -- --- ... ? : # & * ! % @ ` = <<
a:b 'q' {a} [a] |x >x
"""
ODD = ("", " ", "a: b", "a #b", "x\n", "\n", "\ta", "a\\b", "é", "🙂", "\x85", "\u2028", "\ufeff")
LOOKS_LIKE = st.sampled_from([*WORDS.split(), *ODD])
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | TEXT | LOOKS_LIKE
)
# hypothesis also tries words of our modules, among them those of secrets, which no recipe may hold
KEYS = (TEXT | LOOKS_LIKE).filter(lambda key: len(key) < 100 and not is_secret_key(key))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_reading_what_was_written_gives_the_same(tmp_path: Path, tree: object) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_yaml({"section": tree}), encoding="utf-8")
    read = read_document(path).tree
    assert read == {"section": tree}
    assert repr(read) == repr({"section": tree})  # types as well: 1 is not 1.0 is not True


@settings(max_examples=200, deadline=None)
@given(text=TEXT | LOOKS_LIKE)
def test_text_stays_text_for_yaml_1_1_readers(text: str) -> None:
    assert yaml.safe_load(dump_yaml({"key": text})) == {"key": text}


def test_layout_is_stable_and_readable() -> None:
    tree = {"b": {"z": 1e-05, "a": ("q", "v"), "b": ["q"], "rows": [{"x": None}], "empty": {}}, "a": "two\nlines"}
    expected = 'b:\n  z: 1.0e-05\n  a: [q, v]\n  b: [q]\n  rows:\n  - x: null\n  empty: {}\na: "two\\nlines"\n'
    assert dump_yaml(tree) == expected


def test_a_repeated_value_is_written_twice() -> None:
    shared = ["a"]
    assert dump_yaml({"x": shared, "y": shared}) == "x: [a]\ny: [a]\n"


@pytest.mark.parametrize("length", [200, 5000])
def test_long_text_stays_on_one_line(length: int) -> None:
    assert dump_yaml({"system": "word " * length + "end"}).count("\n") == 1


def test_a_section_comes_back_equal(write) -> None:
    training = TrainingConfig(learning_rate=1e-5, max_steps=7, report_to=("wandb",), output_dir="NO")
    document = read_document(write(dump_yaml({"training": training.model_dump(mode="json")})))
    again, notes = parse_section(document, "training", TrainingConfig)
    assert again == training
    assert notes == ()
