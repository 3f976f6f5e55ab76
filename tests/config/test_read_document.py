"""Documents: places, extends, short forms, Python values, unknown sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from subspace.config.load import document_from, peek, read_document, unknown_sections
from subspace.config.overrides import with_overrides
from subspace.core.errors import ConfigError, SubspaceError

SECTIONS = ("model", "data", "method", "training", "evaluation")


def test_place_is_file_line_and_key(write) -> None:
    path = write("data:\n  source: x\n  labels:\n    - a\n    - b\n")
    document = read_document(path)
    assert document.path == str(path)
    assert document.place(("data", "source")) == f"{path}:2:data.source"
    assert document.place(("data", "labels", 1)) == f"{path}:5:data.labels[1]"
    assert document.place(("data", "split")) == f"{path}:1:data.split"
    assert document.place(("training", "seed")) == f"{path}:training.seed"
    assert document.place(()) == str(path)


def test_lists_are_tuples_from_yaml_and_from_python(write) -> None:
    tree = {"data": {"labels": ["a", ["b"]]}}
    expected = {"data": {"labels": ("a", ("b",))}}
    assert read_document(write("data:\n  labels: [a, [b]]\n")).tree == expected
    assert document_from(tree).tree == expected
    assert document_from({"training": {"output_dir": Path("out")}}).tree == {"training": {"output_dir": "out"}}


def test_python_values_stand_at_their_key() -> None:
    document = document_from({"training": {"seed": 1}})
    assert document.place(("training", "seed")) == "training.seed"
    assert document.place(()) == "recipe"


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {3}}, b"x"])
def test_other_python_values_are_refused_at_their_key(value: object) -> None:
    with pytest.raises(ConfigError, match=r"E-CFG-010 data\.x"):
        document_from({"data": {"x": value}})


def test_method_may_be_one_word(write) -> None:
    document = read_document(write("method: lora\n"))
    assert document.tree == {"method": {"name": "lora"}}
    assert document.place(("method", "name")).endswith("recipe.yaml:1:method.name")
    assert peek(document, "method", "name") == "lora"
    assert peek(document_from({"method": "dora"}), "method", "name") == "dora"
    assert peek(document, "method", "rank") is None
    assert peek(document, "model", "name", "x") is None


def test_extends_merges_one_level_and_keeps_places(write) -> None:
    base = write("training:\n  seed: 1\n  lr: 1e-3\nmethod:\n  name: lora\n  rank: 8\n", "base.yaml")
    path = write("extends: base.yaml\nmethod: dora\ntraining:\n  seed: 2\n")
    document = read_document(path)
    assert document.tree == {"training": {"seed": 2, "lr": 1e-3}, "method": {"name": "dora"}}
    assert document.place(("training", "lr")) == f"{base}:3:training.lr"
    assert document.place(("training", "seed")) == f"{path}:4:training.seed"
    assert document.place(("method", "name")) == f"{path}:2:method.name"
    assert len(document.notes) == 1
    assert str(base) in document.notes[0]


def test_base_is_found_beside_the_recipe(write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("a: 1\n", "base.yaml")
    assert read_document(write("extends: ../base.yaml\n", "deep/recipe.yaml")).tree == {"a": 1}


@pytest.mark.parametrize("extends", ["nowhere.yaml", "recipe.yaml", "nested.yaml", "3", "[a.yaml, b.yaml]", "''"])
def test_base_must_be_one_plain_recipe(write, extends: str) -> None:
    write("extends: base.yaml\n", "nested.yaml")
    with pytest.raises(ConfigError) as caught:
        read_document(write(f"a: 1\nextends: {extends}\n"))
    assert caught.value.code == "E-CFG-021"


def test_a_broken_base_is_named(write) -> None:
    write("a: [\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"E-CFG-004 .*base\.yaml:2:1"):
        read_document(write("extends: base.yaml\n"))


def test_unknown_section_names_the_nearest(write) -> None:
    document = read_document(write("data: {}\ntrainning: {}\nfoo: 1\n"))
    with pytest.raises(ConfigError) as caught:
        unknown_sections(document, SECTIONS)
    assert caught.value.code == "E-CFG-007"
    assert "recipe.yaml:2:trainning: unknown section 'trainning'; expected one of" in str(caught.value)
    assert str(caught.value).endswith("Did you mean 'training'? (and 1 more)")
    assert [other.where.rpartition(":")[2] for other in caught.value.others] == ["foo"]
    unknown_sections(read_document(write("data: {}\n")), SECTIONS)


def test_a_llamafactory_file_is_recognised(write) -> None:
    document = read_document(write("model_name_or_path: x\nstage: sft\ndataset: y\n"))
    with pytest.raises(SubspaceError, match="subspace migrate"):
        unknown_sections(document, SECTIONS)


def test_a_section_mistyped_in_an_override_is_found_on_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  model_name_or_path: builtin/tiny-llama\n")
    document = with_overrides(read_document(recipe), ["traning.max_steps=3"])
    with pytest.raises(ConfigError) as caught:
        unknown_sections(document, ("model", "training"))
    assert caught.value.where == "command line:traning.max_steps"
