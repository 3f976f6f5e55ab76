"""What became of the rows, in counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from subspace.core.errors import SubspaceError
from subspace.data.encode.encoded import Encoded
from subspace.data.sources.files import SourceFile

__all__ = ["Report", "Tally", "histogram"]

_SHOWN_ERRORS = 5
_KEPT_ERRORS = 1000
_BINS = 16


@dataclass(slots=True)
class Tally:
    """Rows that were skipped, by the code of what was wrong with them."""

    counts: Counter[str] = field(default_factory=Counter)
    errors: list[SubspaceError] = field(default_factory=list)
    """The first thousand, in the order of the rows."""

    def skip(self, error: SubspaceError) -> None:
        """Count a row."""
        self.counts[error.code] += 1
        if len(self.errors) < _KEPT_ERRORS:
            error.__context__ = None
            self.errors.append(error.with_traceback(None))  # which would keep the rows

    @property
    def shown(self) -> list[str]:
        """The first few errors in words."""
        return [f"{error.code} {error.where}: {error.found}" for error in self.errors[:_SHOWN_ERRORS]]

    def words(self) -> str:
        """Return the counts in words."""
        return ", ".join(f"{count} x {code}" for code, count in sorted(self.counts.items())) or "none"


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of one split.

    Attributes:
        split: train or validation.
        format: Format of the rows.
        num_rows_read: Rows in the source.
        skipped: Error code to number of rows left out.
        skipped_examples: The first few of their errors.
        num_elsewhere: Rows that a fraction puts on the other side, to be evaluated or trained on.
        num_examples: Rows in use.
        num_sequences: Sequences that they make: fewer when packed, more when documents are split.
        num_tokens: Tokens in all.
        num_target_tokens: Tokens that count in the loss.
        num_truncated: Sequences that lost tokens.
        num_cut_tokens: Tokens that they lost.
        num_control_texts: Rows with text that reads like a control token; it was encoded as plain text.
        max_length: Limit of a sequence.
        longest: Longest sequence.
        histogram: (shortest, longest, count) of sequence lengths before packing.
        files: Files that were read.
        remarks: What else a person should know.
    """

    split: str
    format: str
    num_rows_read: int
    skipped: dict[str, int]
    skipped_examples: tuple[str, ...]
    num_examples: int
    num_sequences: int
    num_tokens: int
    num_target_tokens: int
    num_truncated: int
    num_cut_tokens: int
    num_control_texts: int
    max_length: int
    longest: int
    histogram: tuple[tuple[int, int, int], ...]
    files: tuple[SourceFile, ...] = ()
    remarks: tuple[str, ...] = ()
    num_elsewhere: int = 0

    @property
    def share_cut(self) -> float:
        """Share of all tokens that truncation took away."""
        return self.num_cut_tokens / max(self.num_tokens + self.num_cut_tokens, 1)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know, one sentence each; () if nothing."""
        notes = []
        if self.skipped:
            counts = ", ".join(f"{count} x {code}" for code, count in sorted(self.skipped.items()))
            notes.append(f"{self.split}: skipped {sum(self.skipped.values())} of {self.num_rows_read} rows ({counts})")
            notes += [f"{self.split}: skipped {error}" for error in self.skipped_examples]
        if self.num_truncated:
            notes.append(
                f"{self.split}: {self.num_truncated} rows were longer than max_length {self.max_length} and lost "
                f"{self.num_cut_tokens} tokens ({self.share_cut:.1%} of all)"
            )
        if self.num_control_texts:
            notes.append(
                f"{self.split}: {self.num_control_texts} rows hold text that reads like a control token; "
                "it is encoded as plain text"
            )
        return (*notes, *self.remarks)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values; times of files are left out, because they differ between machines."""
        values = {name: getattr(self, name) for name in self.__slots__ if name not in {"files", "histogram"}}
        return {
            **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
            "share_cut": self.share_cut,
            "histogram": [list(part) for part in self.histogram],
            "files": [{"path": str(f.path), "bytes": f.num_bytes, "sha256": f.sha256} for f in self.files],
        }


def histogram(lengths: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Return (shortest, longest, count) of at most sixteen bins of equal width over the lengths.

    >>> histogram([1, 2, 2, 3])
    ((1, 1, 1), (2, 2, 2), (3, 3, 1))
    """
    if not lengths:
        return ()
    low, high = min(lengths), max(lengths)
    width = -(-(high - low + 1) // _BINS)
    counts = Counter((length - low) // width for length in lengths)
    return tuple(
        (low + number * width, min(low + (number + 1) * width - 1, high), counts[number])
        for number in range((high - low) // width + 1)
    )


def summarize(rows: Sequence[Encoded], tally: Tally, **facts: Any) -> Report:
    """Return the report of unpacked rows; `facts` are the fields of `Report` that rows and tally do not tell."""
    lengths = [len(row.input_ids) for row in rows]
    return Report(
        skipped=dict(tally.counts),
        skipped_examples=tuple(tally.shown),
        num_examples=len({row.place for row in rows}),
        num_tokens=sum(lengths),
        num_target_tokens=sum(row.num_target_tokens for row in rows),
        num_truncated=sum(row.num_cut_tokens > 0 for row in rows),
        num_cut_tokens=sum(row.num_cut_tokens for row in rows),
        longest=max(lengths, default=0),
        histogram=histogram(lengths),
        **facts,
    )
