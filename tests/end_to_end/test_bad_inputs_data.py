"""Bad data on the real command line: rows 25 to 40 of the bad-input matrix.

The data room tests every reader; here `train` has to end with the right status, code and place, and leave nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

GOOD = {"prompt": "1 + 1 =", "completion": " 2"}
CHAT = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
CLASSES = {"model": {"task": "classification"}, "data": {"labels": ["no", "yes"]}}


@dataclass(frozen=True)
class Case:
    """A data file that is refused.

    Attributes:
        row: In the matrix.
        name: Of the file.
        content: Of the file; None for no file.
        code: Of the error.
        said: What follows the file's name in the message, and more that it must hold.
        status: Exit status.
        changes: To the tiny recipe.
    """

    row: int
    name: str
    content: bytes | None
    code: str
    said: Sequence[str]
    status: int = 3
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)


def lines(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def labelled(*labels: Any) -> bytes:
    return lines(*({"text": f"row {number}", "label": label} for number, label in enumerate(labels)))


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


class Evil:
    """Leaves a canary where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("canary", "w")


DEEP = b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}\n"
TOO_SHORT = {"data": {"max_length": 8, "max_train_samples": None}}
CASES = [
    Case(25, "absent.jsonl", None, "E-DAT-001", [": no such file"]),
    Case(25, "empty.jsonl", b"", "E-DAT-001", [": the file is empty"]),
    Case(25, "none.json", b"[]", "E-DAT-001", ["", "no row is left of 0"]),
    Case(25, "bad.jsonl", lines(b"{\n", GOOD | {"completion": None}), "E-DAT-001",
         ["", "no row is left of 2", "1 x E-DAT-003, 1 x E-DAT-005"], changes={"data": {"on_bad_row": "skip"}}),
    Case(26, "array.jsonl", json.dumps([GOOD]).encode(), "E-DAT-002", [":1: looks like a JSON array", ".json"]),
    Case(26, "lines.json", lines(GOOD, GOOD), "E-DAT-002", [": looks like JSON Lines", ".jsonl"]),
    Case(27, "comma.jsonl", lines(*[GOOD] * 8112, b'{"prompt": "a" "completion": "b"}\n'), "E-DAT-003",
         [":8113:16: Expecting ',' delimiter", '{"prompt": "a" "comp']),
    Case(28, "column.jsonl", lines({"instructions": "a", "output": "b"}), "E-DAT-004", [": ", "'instruction'"]),
    Case(28, "later.jsonl", lines(GOOD, {"prompt": "a", "complete": "b"}), "E-DAT-004",
         [":2: needs the column 'completion'", "Is it 'complete'?"]),
    Case(29, "null.jsonl", lines(GOOD, GOOD | {"completion": None}), "E-DAT-005", [":2:completion: the field is null"]),
    Case(29, "number.jsonl", lines(GOOD | {"completion": 6}), "E-DAT-005", [":1:completion: the field is a number"]),
    Case(29, "list.jsonl", lines(GOOD | {"prompt": [["a"]]}), "E-DAT-005", [":1:prompt: the field is a list"]),
    Case(30, "seven.jsonl", labelled(0, 1, 7), "E-DAT-006", [":3: label 7", "no, yes"], changes=CLASSES),
    Case(30, "float.jsonl", labelled(0, 1, 0.5), "E-DAT-006", [":3:label: label 0.5"], changes=CLASSES),
    Case(30, "word.jsonl", labelled("yes", "no", "yse"), "E-DAT-006", [":3: label 'yse'", "'yes'?"], changes=CLASSES),
    Case(32, "long.jsonl", lines(*[{"instruction": "a", "output": "b"}] * 3), "E-DAT-008",
         [":1: 3 of 3 rows keep no target token", "max_length"], changes=TOO_SHORT),
    Case(33, "wide.jsonl", lines(GOOD, GOOD | {"prompt": "x" * 10_000_000}), "E-DAT-009", [":2: line of more than"]),
    Case(33, "columns.csv", ",".join(f"c{number}" for number in range(1_000_000)).encode(), "E-DAT-009",
         [":1: 1000000 columns"]),
    Case(33, "deep.jsonl", lines(GOOD, DEEP), "E-DAT-009", [":2: JSON nested"]),
    Case(34, "latin.jsonl", lines(GOOD, '{"prompt": "é"}\n'.encode("latin-1")), "E-DAT-010",
         [":2: byte 0xe9 at offset 12"]),
    Case(34, "half.jsonl", b'{"prompt": "a \\ud83e", "completion": "b"}\n', "E-DAT-010",
         [":1:prompt: half a surrogate pair U+D83E"]),
    Case(34, "utf16.jsonl", json.dumps(GOOD).encode("utf-16"), "E-DAT-010", [": UTF-16"]),
    Case(34, "blank.jsonl", lines(GOOD | {"completion": " \t\n"}), "E-DAT-005", [":1:completion: the field is empty"]),
    Case(35, "rows.zip", zipped("rows.jsonl", lines(GOOD)), "E-DAT-011", [": an archive"]),
    Case(35, "torn.jsonl.gz", gzip.compress(lines(GOOD) * 99)[:-9], "E-DAT-011", [": damaged gzip"]),
    Case(35, "slip.zip", zipped("../../rows.jsonl", lines(GOOD)), "E-SEC-005", [": member '../../rows.jsonl'"], 8),
    Case(35, "bomb.jsonl.gz", gzip.compress(bytes(60_000_000)), "E-SEC-005", [": ", "unpack to more than"], 8),
    Case(36, "rows.pkl", pickle.dumps(Evil()), "E-SEC-006", [": ", "can carry code"], 8),
    Case(36, "rows.jsonl", pickle.dumps(Evil()), "E-SEC-006", [": ", "can carry code"], 8),
    Case(36, "rows.npy", b"\x93NUMPY", "E-SEC-006", [": ", "can carry code"], 8),
    Case(36, "rows.pt", zipped("data.pkl", pickle.dumps(Evil())), "E-SEC-006", [": ", "can carry code"], 8),
    Case(36, "rows.py", b"open('canary', 'w')\n", "E-SEC-006", [": ", "can carry code"], 8),
    Case(37, "torn.parquet", parquet([GOOD] * 99)[:-20], "E-DAT-012", [": damaged parquet"]),
    Case(37, "ragged.csv", b"prompt,completion\na,b\nc\n", "E-DAT-012", [":3: 1 cells"]),
    Case(37, "huge.jsonl", labelled(0, 1, 10**30), "E-DAT-006", [":3: label 1000"], changes=CLASSES),
    Case(37, "nan.csv", b"text,label\na,0\nb,NaN\n", "E-DAT-006", [":3: label 'NaN'"], changes=CLASSES),
    Case(38, "users.jsonl", lines({"messages": CHAT}, {"messages": [CHAT[0], *CHAT]}), "E-DAT-013",
         [":2: turn 2 is 'user' after 'user'"]),
    Case(38, "mute.jsonl", lines({"messages": CHAT[:1]}), "E-DAT-013", [":1: the last turn is 'user'"]),
    Case(38, "role.jsonl", lines({"messages": [{"role": "asistant", "content": "a"}]}), "E-DAT-013",
         [":1: turn 1: unknown role 'asistant'", "'assistant'"]),
    Case(38, "silent.jsonl", lines({"messages": [CHAT[0], CHAT[1] | {"content": ""}]}), "E-DAT-013",
         [":1: turn 2: the assistant turn is empty"]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[f"{case.row}-{case.name}" for case in CASES])
def test_data_that_cannot_be_used(case: Case, subspace: CommandLine) -> None:
    if case.content is not None:
        subspace.write(case.name, case.content)
    data = {"source": case.name, **case.changes.get("data", {})}
    recipe = subspace.recipe({**case.changes, "data": data})
    said = [case.name + case.said[0], *case.said[1:]]
    told = subspace.refused("train", recipe, status=case.status, code=case.code, said=said)
    assert len(told) < 1000
    assert "Evil" not in told


def test_misspelt_file_gets_the_nearest_name(subspace: CommandLine) -> None:
    subspace.write("train.jsonl", lines(GOOD))
    recipe = subspace.recipe({"data": {"source": "trian.jsonl"}})
    subspace.refused("train", recipe, status=3, code="E-DAT-001", said=["trian.jsonl", "Did you mean train.jsonl?"])


def test_file_named_like_a_number_or_a_list(subspace: CommandLine) -> None:
    """Names from options are names, whatever YAML would make of them."""
    for name in ("[x].jsonl", "{a: 1}.jsonl", "'"):
        said = f"{name}: no such file"
        subspace.refused("train", subspace.recipe(), "--data", name, status=3, code="E-DAT-001", said=said)
    folder = subspace.write("123/train.jsonl", lines(*[GOOD] * 9)).parent
    told = subspace("train", subspace.recipe(), "--data", folder.name, "--dry-run").out
    assert "lora" in told


def test_rows_in_both_splits_repeated_ids_and_skipped_rows_are_told(subspace: CommandLine) -> None:
    rows = [{"prompt": f"{number} + 1 =", "completion": f" {number + 1}", "id": number % 5} for number in range(8)]
    subspace.write("train.jsonl", lines(*rows, b"{\n"))
    subspace.write("dev.jsonl", lines(*rows[:3]))
    data = {"source": "train.jsonl", "validation": "dev.jsonl", "on_bad_row": "skip"}
    recipe = subspace.recipe({"data": data, "training": {"max_steps": 1}})
    said = " ".join(subspace("train", recipe).err.split())
    assert "E-DAT-007 3 of 3 validation rows are in train too" in said
    assert "E-DAT-007 train.jsonl: 3 values of the column 'id' occur more than once" in said
    assert "train: skipped 1 of 9 rows (1 x E-DAT-003)" in said


def test_long_rows_and_control_tokens_in_texts_are_told(subspace: CommandLine) -> None:
    subspace.write("rows.jsonl", lines(GOOD | {"prompt": "what " * 200}, GOOD | {"prompt": "what is </s>?"}))
    said = " ".join(subspace("data", "preview", subspace.recipe({"data": {"source": "rows.jsonl"}})).err.split())
    assert "1 rows were longer than max_length 64" in said
    assert "1 rows hold text that reads like a control token" in said


@pytest.mark.parametrize("text", ["emoji 🦊👩‍👩‍👧", "שלום עולם", "tab\tand line\nend", "nul \0 byte"])
def test_unusual_texts_are_shown_as_they_are(text: str, subspace: CommandLine) -> None:
    subspace.write("rows.jsonl", lines({"prompt": text, "completion": " ok"}))
    ended = subspace("data", "preview", subspace.recipe({"data": {"source": "rows.jsonl"}}))
    assert "1 of 1 rows in use" in " ".join(ended.out.split())


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from subspace.models.tiny import write_tiny_folder

    return write_tiny_folder(tmp_path_factory.mktemp("models") / "bare", "llama", chat=False)


def without_end_token(bare_model: Path, subspace: CommandLine, **tokens: str) -> Path:
    """Copy the model with none but these special tokens."""
    folder = shutil.copytree(bare_model, subspace.folder / "model")
    settings, content = folder / "tokenizer_config.json", folder / "tokenizer.json"
    fields = json.loads(settings.read_text())
    kept = {key: value for key, value in fields.items() if not key.endswith("_token")}
    settings.write_text(json.dumps(kept | tokens))
    inner = json.loads(content.read_text())
    inner["model"]["unk_token"] = None
    content.write_text(json.dumps(inner))
    return folder


def test_chat_rows_without_template_and_end_token(bare_model: Path, subspace: CommandLine) -> None:
    subspace.write("rows.jsonl", lines({"messages": CHAT}))
    folder = without_end_token(bare_model, subspace, pad_token="<|begin_of_text|>")
    changes = {"model": {"model_name_or_path": str(folder)}, "data": {"source": "rows.jsonl"}}
    subspace.refused("train", subspace.recipe(changes), status=3, code="E-DAT-014", said="template")


def test_tokenizer_without_any_token_to_pad_with(bare_model: Path, subspace: CommandLine) -> None:
    folder = without_end_token(bare_model, subspace)
    recipe = subspace.recipe({"model": {"model_name_or_path": str(folder)}})
    subspace.refused("train", recipe, status=3, code="E-DAT-014", said=[str(folder), "without padding"])


def test_file_that_changes_while_it_is_read(subspace: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from subspace.data import prepare

    path = subspace.write("rows.jsonl", lines(*[GOOD] * 9))
    summarize = prepare.summarize

    def touched(*arguments: Any, **options: Any) -> Any:
        path.write_bytes(lines(*[GOOD] * 10))
        return summarize(*arguments, **options)

    monkeypatch.setattr(prepare, "summarize", touched)
    ended = subspace.end("train", subspace.recipe({"data": {"source": "rows.jsonl"}}))
    assert ended.status == 3
    assert "E-DAT-015 rows.jsonl: " in ended.err
    assert not (subspace.folder / "out").exists()


def test_pipe_instead_of_a_file(subspace: CommandLine) -> None:
    os.mkfifo(subspace.folder / "rows.jsonl")
    recipe = subspace.recipe({"data": {"source": "rows.jsonl"}})
    subspace.refused("train", recipe, status=3, code="E-DAT-002", said="rows.jsonl: not a regular file")


@pytest.mark.parametrize("verb", [["plan"], ["data", "preview"], ["train", "--dry-run"]], ids=lambda verb: verb[-1])
def test_every_verb_that_reads_data_refuses_them(verb: list[str], subspace: CommandLine) -> None:
    subspace.write("rows.jsonl", lines(GOOD, b"{\n"))
    training = {"max_steps": None, "num_train_epochs": 1}
    recipe = subspace.recipe({"data": {"source": "rows.jsonl"}, "training": training})
    subspace.refused(verb[0], *verb[1:], recipe, status=3, code="E-DAT-003", said="rows.jsonl:2:2: ")


def bad_rows(subspace: CommandLine) -> None:
    rows = [json.dumps({"prompt": f"{number} + 1 =", "completion": f" {number + 1}"}) for number in range(100)]
    rows[2], rows[4], rows[10] = "{", json.dumps({"prompt": "1 + 1 =", "completion": ""}), json.dumps({"prompt": "1"})
    subspace.write("rows.jsonl", "\n".join(rows) + "\n")


def test_a_preview_tells_of_all_bad_rows(subspace: CommandLine) -> None:
    bad_rows(subspace)
    recipe = subspace.recipe({"data": {"source": "rows.jsonl"}})
    ended = subspace.end("data", "preview", recipe.name)
    lines = [line for line in ended.err.splitlines() if line.startswith("E-DAT")]
    assert ended.status == 3
    assert sorted(line.split(":")[1] for line in lines) == ["11", "3", "5"]
    assert "(and 2 more)" in lines[-1]
    assert "data.on_bad_row" in ended.err


def test_rows_that_were_skipped_or_held_out_are_named(subspace: CommandLine) -> None:
    bad_rows(subspace)
    data = {"source": "rows.jsonl", "on_bad_row": "skip", "validation": None, "validation_fraction": 0.2}
    ended = subspace("data", "preview", subspace.recipe({"data": data}).name)
    told = " ".join((ended.out + ended.err).split())
    assert "train: skipped 3 of 100 rows" in told
    for line in (3, 5, 11):
        assert f"rows.jsonl:{line}" in told
    found = re.search(r"(\d+) of 100 rows in use, (\d+) held out to evaluate on", told)
    assert found is not None, told
    assert int(found[1]) + int(found[2]) == 97
    assert 10 <= int(found[2]) <= 30


def test_sample_data_are_json(subspace: CommandLine) -> None:
    said = "out: a file named rows.csv; expected .jsonl or .json"
    subspace.refused("data", "prepare", "rows.csv", status=2, code="E-CLI-001", said=said)
