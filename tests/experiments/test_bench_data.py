"""Finished runs are held against their data files: no comparison is made of rows that changed in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stub_bench import MATRIX, WriteMatrix, executed, run_stub, sealed_runs

from subspace.core.errors import DataError
from subspace.experiments import data_files
from subspace.experiments.bench import Observer


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n' * 50)
    return path


def on(rows: Path) -> dict[str, Any]:
    recipe = MATRIX["recipe"]
    return {"recipe": {**recipe, "data": {**recipe["data"], "source": str(rows)}}}


def test_a_file_that_changed_since_is_refused_by_name(
    write_matrix: WriteMatrix, tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, matrix = tmp_path / "out", write_matrix(on(rows))
    run_stub(matrix, out)
    before, ids, old = executed(out), sealed_runs(out), rows.read_bytes()

    rows.write_bytes(old.replace(b"2", b"3", 1))
    with pytest.raises(DataError, match="E-DAT-015") as refused:
        run_stub(matrix, out)
    assert refused.value.where == str(rows)
    assert "--out" in refused.value.action
    assert (executed(out), sealed_runs(out)) == (before, ids)

    rows.write_bytes(old)
    read: list[Path] = []
    digest = data_files.file_digest
    monkeypatch.setattr(data_files, "file_digest", lambda path: read.append(path) or digest(path))
    again = run_stub(matrix, out)
    assert again.num_kept == again.num_jobs == len(ids)
    assert read == [rows], "once, however many runs were made of it"

    rows.unlink()
    assert run_stub(matrix, out).num_kept == len(ids), "what is gone says nothing"


def test_a_file_that_changes_on_the_way_ends_the_bench(write_matrix: WriteMatrix, tmp_path: Path, rows: Path) -> None:
    class Writer(Observer):
        def on_job(self, *rest: Any) -> None:
            rows.write_text('{"prompt": "1 + 1 =", "completion": " 3"}\n' * 50)

    with pytest.raises(DataError, match="E-DAT-015"):
        run_stub(write_matrix(on(rows)), tmp_path / "out", observer=Writer())
