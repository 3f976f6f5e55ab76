"""The examples of one split: read, turned into examples, held out, and checked against the other split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from subspace.core.errors import DataError, SubspaceError
from subspace.data.config import DataConfig
from subspace.data.examples import Example
from subspace.data.formats import Chosen, choose_reader
from subspace.data.report import Tally
from subspace.data.sources import Place, Row, SourceFile, Sources

__all__ = ["Split", "SplitExamples", "held_out", "read_split"]

Split = Literal["train", "validation"]

_ROWS_LOOKED_AT = 1000
"""Rows whose columns decide the format."""
_FEW_DOCUMENTS = 20
"""Below this many documents a share for validation is the end of each, not some of them."""
_TUNING = "tuning\x1f"
"""Put before a row's content, so that the rows held out for tuning do not depend on those held out for validation."""


@dataclass(slots=True)
class SplitExamples:
    """Examples of one split before they are tokens.

    Attributes:
        usable: The examples.
        training: The training examples; for the training split the same.
        chosen: The format.
        tally: Rows left out.
        num_read: Rows in the source.
        num_elsewhere: Of them, those that a fraction puts on the other side.
        files: Files that were read.
        classes: Names of the classes, where the source states them.
        remarks: What a person should know.
    """

    usable: list[Example]
    training: list[Example]
    chosen: Chosen
    tally: Tally
    num_read: int
    files: tuple[SourceFile, ...]
    classes: tuple[str, ...] | None
    remarks: list[str] = field(default_factory=list)
    num_elsewhere: int = 0


def read_split(config: DataConfig, sources: Sources, task: str, split: Split) -> SplitExamples:
    """Return the examples of a split.

    Raises:
        ConfigError: As `choose_reader`.
        DataError: E-DAT-001 if nothing is left; any other for a row that may not be skipped.
        SecurityError: E-SEC-003, 005 or 006.
    """
    fraction, tuning = config.validation_fraction, config.tuning_fraction
    if split == "validation" and sources.validation is not None and tuning == 0.0:
        found = _read(config, sources.validation, task)
        found.training = _read(config, sources.train, task).training
        _remark_overlap(found)
    elif split == "validation" and fraction == tuning == 0.0:
        raise DataError(
            "E-DAT-001",
            where="data.validation",
            found="no validation rows",
            action="Set data.validation or data.validation_fraction.",
        )
    else:
        found = _read(config, sources.train, task)
        kept, held = found.usable, list[Example]()
        if sources.validation is None and fraction > 0.0:
            kept, held = held_out(kept, fraction)
        if tuning > 0.0:
            kept, held = held_out(kept, tuning, _TUNING)
        found.num_elsewhere = len(found.usable) - len(held if split == "validation" else kept)
        found.usable, found.training = (held if split == "validation" else kept), kept
    if not found.usable:
        raise nothing_left(split, found.num_read, found.tally)
    return found


def nothing_left(split: str, num_read: int, tally: Tally) -> DataError:
    """Return the error for a split without rows."""
    first = f" First: {tally.shown[0]}" if tally.shown else ""
    return DataError(
        "E-DAT-001",
        where=f"data ({split})",
        found=f"no row is left of {num_read} (skipped: {tally.words()})",
        action=f"Check the source, data.format and data.validation_fraction.{first}",
    )


def _remark_overlap(found: SplitExamples) -> None:
    known = {example.content_key() for example in found.training}
    both = sum(example.content_key() in known for example in found.usable)
    if both:
        found.remarks.append(f"E-DAT-007 {both} of {len(found.usable)} validation rows are in train too")


def _read(config: DataConfig, place: Place, task: str) -> SplitExamples:
    """Read one split of one source, whole."""
    table, entry = place.source.read(place.split), place.entry
    tally, rows, num_read = Tally(), list[Row](), 0
    for row in islice(table.rows, entry.num_samples if entry else None):
        num_read += 1
        if isinstance(row, Row):
            rows.append(row)
        else:
            tally.skip(row)
    if not rows:
        _stop_at(tally, config)
        raise nothing_left(place.source.name, num_read, tally)
    present = tuple(dict.fromkeys(column for row in rows[:_ROWS_LOOKED_AT] for column in row.values))
    try:
        chosen = choose_reader(config, entry, present, task, place.source.name)
    except DataError:
        _stop_at(tally, config)
        raise
    examples = list(_examples(rows, chosen, tally))
    _stop_at(tally, config)
    classes = table.classes.get(chosen.label_column) if chosen.label_column else None
    remarks = list(entry.notes) if entry else []
    ids = Counter(str(row.values["id"]) for row in rows if row.values.get("id") is not None)
    twice = sum(count > 1 for count in ids.values())
    if twice:
        remarks.append(f"E-DAT-007 {place.source.name}: {twice} values of the column 'id' occur more than once")
    return SplitExamples(examples, examples, chosen, tally, num_read, table.files, classes, remarks)


def _examples(rows: list[Row], chosen: Chosen, tally: Tally) -> Iterator[Example]:
    for row in rows:
        try:
            yield chosen.read(row)
        except DataError as error:
            tally.skip(error)


def _place(error: SubspaceError) -> list[int]:
    """Return the numbers in the place of an error: line and column."""
    return [int(number) for number in re.findall(r"\d+", error.where.rpartition("/")[2])]


def _stop_at(tally: Tally, config: DataConfig) -> None:
    """Raise what is wrong with rows, the first with the others, where the recipe says stop."""
    if config.on_bad_row == "stop" and tally.errors:
        first, *others = sorted(tally.errors, key=_place)
        first.others = tuple(others)
        raise first


def held_out(examples: list[Example], fraction: float, salt: str = "") -> tuple[list[Example], list[Example]]:
    """Return the examples to train on and those to evaluate on.

    A row belongs to one side by the hash of its content: the same in every run, whatever rows are added, and equal rows
    stay together. Of a handful of documents the end of each is held out instead.

    Args:
        examples: All of them.
        fraction: Share to evaluate on.
        salt: Another one parts the rows in another way.
    """
    if examples and examples[0].kind == "document" and len(examples) < _FEW_DOCUMENTS:
        pairs = [_halves(example.text, fraction) for example in examples]
        kept = [replace(example, text=head) for example, (head, _) in zip(examples, pairs, strict=True) if head.strip()]
        held = [replace(example, text=tail) for example, (_, tail) in zip(examples, pairs, strict=True) if tail.strip()]
        return kept, held
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        digest = hashlib.sha256((salt + example.content_key()).encode("utf-8", "surrogatepass")).digest()
        sides[int.from_bytes(digest[:8], "big") < fraction * 2**64].append(example)
    return sides


def _halves(text: str, fraction: float) -> tuple[str, str]:
    """Return a document's beginning and its last share, parted after a line."""
    middle = round(len(text) * (1.0 - fraction))
    end = text.find("\n", middle) + 1
    return (text[:end], text[end:]) if 0 < end < len(text) else (text[:middle], text[middle:])
