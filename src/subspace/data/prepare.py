"""The whole way of one split: source, rows, examples, tokens, sequences, and a report of what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subspace.core.errors import ConfigError, DataError
from subspace.data.config import DataConfig
from subspace.data.encode import Encoded, encode_examples
from subspace.data.examples import Example
from subspace.data.labels import class_names, class_number
from subspace.data.packing import pack
from subspace.data.report import Report, Tally, summarize
from subspace.data.sources import open_sources
from subspace.data.splits import Split, SplitExamples, nothing_left, read_split

__all__ = ["EncodedRows", "Prepared", "has_validation", "prepare"]

EncodedRows = Sequence[Encoded]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One split, ready to be put into batches.

    Attributes:
        rows: Sequences in order.
        labels: Names of the classes, with classification.
        report: Counts.
        fingerprint: SHA-256 of every token, label and position: what a run is tied to.
    """

    rows: EncodedRows
    labels: tuple[str, ...] | None
    report: Report
    fingerprint: str

    def verify_files(self) -> None:
        """Check that the files are still those that were read.

        Raises:
            DataError: E-DAT-015 if one has changed.
        """
        for file in self.report.files:
            file.verify()


def has_validation(config: DataConfig) -> bool:
    """Return whether a recipe has validation rows: named, held out, or brought by the source."""
    shares = config.validation_fraction, config.tuning_fraction
    return max(shares) > 0.0 or open_sources(config).validation is not None


def prepare(config: DataConfig, tokenizer: Any, *, task: str, split: Split) -> Prepared:
    """Read and encode one split.

    Args:
        config: The `data` section.
        tokenizer: A transformers tokenizer.
        task: causal_lm, seq2seq or classification.
        split: Which rows; only those of train are packed.

    Raises:
        ConfigError: E-CFG-014 if options exclude each other; E-CFG-007, 010 or 011 for columns and template.
        DataError: Any E-DAT code, with its place.
        SecurityError: E-SEC-003, 005, 006 or 007.
    """
    if config.packing and task != "causal_lm":
        found = f"data.packing with model.task {task}"
        raise ConfigError("E-CFG-014", where="data.packing", found=found, expected="model.task causal_lm")
    examples = read_split(config, open_sources(config), task, split)
    labels, classes = None, None
    if task == "classification":
        labels = class_names(examples.training, config.labels or examples.classes)
        classes = _numbered(examples, labels, config)
    limit = config.max_train_samples if split == "train" else config.max_eval_samples
    used = examples.usable[:limit]
    results, num_control_texts = encode_examples(used, tokenizer, config, task=task, classes=classes)
    encoded = _kept(results, config, examples.tally)
    if not encoded:
        raise nothing_left(split, examples.num_read, examples.tally)
    rows = pack(encoded, config.max_length) if config.packing and split == "train" else encoded
    report = summarize(
        encoded,
        examples.tally,
        split=split,
        format=examples.chosen.format,
        num_rows_read=examples.num_read,
        num_sequences=len(rows),
        num_control_texts=num_control_texts,
        max_length=config.max_length,
        files=examples.files,
        remarks=tuple(examples.remarks),
        num_elsewhere=examples.num_elsewhere,
    )
    return Prepared(rows, labels, report, _fingerprint(rows, labels))


def _numbered(examples: SplitExamples, labels: tuple[str, ...], config: DataConfig) -> dict[int | str, int]:
    """Return the number of every label that occurs; examples of no class are left out or raised."""
    classes: dict[int | str, int] = {}
    usable = list[Example]()
    for example in examples.usable:
        assert example.label is not None
        if example.label not in classes:
            try:
                classes[example.label] = class_number(example, labels)
            except DataError as error:
                if config.on_bad_row == "stop":
                    raise
                examples.tally.skip(error)
                continue
        usable.append(example)
    examples.usable = usable
    return classes


def _kept(results: Sequence[Encoded | DataError], config: DataConfig, tally: Tally) -> list[Encoded]:
    """Return the rows that were encoded; the others are counted, or raised together where the recipe says stop."""
    kept, stopping = list[Encoded](), list[DataError]()
    for result in results:
        if isinstance(result, Encoded):
            kept.append(result)
            continue
        overflows = result.code == "E-DAT-008"
        may_skip = config.on_bad_row == "skip"
        if overflows:
            may_skip = config.on_overflow == "skip" or (config.on_overflow == "truncate" and may_skip)
        if may_skip:
            tally.skip(result)
        else:
            stopping.append(result)
    if stopping and stopping[0].code == "E-DAT-008":
        first, count = stopping[0], sum(error.code == "E-DAT-008" for error in stopping)
        why = "keep no target token" if config.on_overflow == "truncate" else "are too long"
        raise DataError(
            "E-DAT-008",
            where=first.where,
            found=f"{count} of {len(results)} rows {why}; this one has {first.found}",
            action=first.action,
        )
    if stopping:
        raise stopping[0]
    return kept


def _fingerprint(rows: EncodedRows, labels: tuple[str, ...] | None) -> str:
    digest = hashlib.sha256("\x1f".join(labels or ()).encode())
    for row in rows:
        for values in (row.input_ids, row.labels, row.token_type_ids, row.position_ids):
            digest.update(b"-" if values is None else len(values).to_bytes(8, "little") + values.tobytes())
        digest.update(str(row.label).encode())
    return digest.hexdigest()
