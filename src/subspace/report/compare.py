"""Many runs in one look: a page, pictures and tables from run folders of any age."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from subspace.core.errors import UsageError
from subspace.report.curves import loss_curves
from subspace.report.page.document import write_page
from subspace.report.page.verdict import lines, title, warnings
from subspace.report.record import RunRecord
from subspace.report.study import Study, study_of
from subspace.report.subspace_pictures import energy_picture, subspace_curves
from subspace.report.tables import summary_rows, write_epochs, write_refreshes, write_summary, write_tidy
from subspace.report.verdict_pictures import forest_picture, pareto_picture, search_picture
from subspace.report.verdict_tables import write_verdict_tables
from subspace.report.words.phrase import plain
from subspace.report.words.strings import words
from subspace.runs.bench_layout import BenchLayout
from subspace.runs.discovery import is_run
from subspace.runs.durable import disk_errors

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """What `compare` wrote.

    Attributes:
        study: The runs in order, and the verdict on them.
        page: The HTML page.
        tidy: Every logged number in long form, as CSV.
        summary: One line per run, as CSV.
        curves: The loss curves as PNG; None if no run has logged a loss.
        subspace: The figures of refreshes as PNG; None if no run has logged any.
        energy: Captured energy weight by weight as PNG; None if no run has logged it.
        refreshes: The figures of refreshes weight by weight, as CSV; None if no run has logged any.
        epochs: Validation loss and time of every epoch, as CSV; None if no run has taken the loss at the end of one.
        notes: What was missing or ignored, run by run.
    """

    study: Study
    page: Path
    tidy: Path
    summary: Path
    curves: Path | None
    subspace: Path | None
    energy: Path | None
    refreshes: Path | None
    epochs: Path | None
    notes: tuple[str, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The runs, in the order in which they are shown."""
        return self.study.records

    def words(self, language: str = "en") -> tuple[str, ...]:
        """Return the verdict, one line for each thing it says: the headline, who stands where, what to know."""
        told = [plain(title(self.study), language)]
        between, stop = (words(language)[key] for key in ("between_sentences", "full_stop"))
        for name, sentences in lines(self.study):
            if sentences:
                text = between.join(plain(part, language) for part in sentences)
                told.append(f"{plain(name, language)}: {text.removesuffix(stop)}{stop}")
        return (*told, *(f"! {plain(caution, language)}" for caution in warnings(self.study)))


def compare(
    paths: Iterable[Path],
    out: Path,
    *,
    language: str = "en",
    reference: str | None = None,
    metric: str | None = None,
) -> Comparison:
    """Read the runs in or below `paths` and write their comparison into the folder `out`.

    Args:
        paths: Run folders, or folders that hold run folders.
        out: Made if absent; an earlier comparison in it is replaced file by file, other files stay. No run, no bench.
        language: Of the pictures and of the page as it opens; "en" or "zh".
        reference: The arm that all others are held against; None compares all pairs.
        metric: What speaks for every task that has it.

    Raises:
        DataError: E-DAT-001 if a path holds no run.
        UsageError: E-CLI-001 if there is no such arm or metric; E-CLI-004 if `out` is a run or a bench.
        ResourceError: E-RES-002 if `out` cannot be written.
    """
    _check_free(out)
    listed = list(paths)
    command = _command(listed, out, language, reference, metric)
    found = study_of(listed, reference=reference, metric=metric, command=command)
    records = found.records
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    tidy, summary, page = out / "tidy.csv", out / "summary.csv", out / "index.html"
    write_tidy(records, tidy)
    write_summary(summary_rows(records), summary)
    told = write_verdict_tables(found, out, language)
    further = _further(found, out, language)
    files = {path.name: f"file_{key}" for key, path in told.items()}
    files |= {summary.name: "file_summary", tidy.name: "file_tidy"}
    files |= {path.name: f"file_{key}" for key, path in further.items()}
    write_page(found, page, files=files, language=language)
    notes = tuple(f"{record.name}: {note}" for record in records for note in record.notes)
    drawn = {name: further.get(name) for name in ("curves", "subspace", "energy", "refreshes", "epochs")}
    return Comparison(found, page, tidy, summary, **drawn, notes=notes)


def _check_free(out: Path) -> None:
    """Refuse a folder that is a run or a bench: a comparison is none of its files.

    Raises:
        UsageError: E-CLI-004.
    """
    layout = BenchLayout(out)
    bench = layout.bench.is_file() or layout.journal.is_file()
    if not bench and not is_run(out):
        return
    beside = layout.comparison if bench else out.resolve().parent / "comparison"
    raise UsageError(
        "E-CLI-004",
        where=f"--out {out}",
        found="the folder of a bench" if bench else "the folder of a run",
        expected="a folder that is new, empty, or holds an earlier comparison",
        action=f"Give another folder, such as `--out {shlex.quote(str(beside))}`.",
    )


def _command(paths: Iterable[Path], out: Path, language: str, reference: str | None, metric: str | None) -> str:
    words = ["subspace", "compare", *map(str, paths), "--out", str(out)]
    words += ["--reference", reference] if reference else []
    words += ["--metric", metric] if metric else []
    words += ["--language", language] if language != "en" else []
    return shlex.join(words)


def _further(study: Study, out: Path, language: str) -> dict[str, Path]:
    """Write what only some runs can show; return its files by what they show."""
    records = study.records
    paths = {
        "forest": out / "ranking.png",
        "pareto": out / "pareto.png",
        "search": out / "learning_rates.png",
        "curves": out / "loss_curves.png",
        "subspace": out / "subspace.png",
        "energy": out / "captured_energy.png",
        "refreshes": out / "refreshes.csv",
        "epochs": out / "epochs.csv",
    }
    written = {
        "forest": forest_picture(study, paths["forest"], language=language),
        "pareto": pareto_picture(study, paths["pareto"], language=language),
        "search": search_picture(study, paths["search"], language=language),
        "curves": any(record.series(event, "loss")[0] for record in records for event in ("step", "eval")),
        "subspace": subspace_curves(records, paths["subspace"], language=language),
        "energy": energy_picture(records, paths["energy"], language=language),
        "refreshes": any(record.refreshes for record in records),
        "epochs": any(record.epochs for record in records),
    }
    if written["curves"]:
        loss_curves(records, paths["curves"], language=language)
    if written["refreshes"]:
        write_refreshes(records, paths["refreshes"])
    if written["epochs"]:
        write_epochs(study.arms.fields, paths["epochs"])
    return {key: path for key, path in paths.items() if written[key]}
