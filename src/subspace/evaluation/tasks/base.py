"""What a task is: where its documents come from, how one becomes a prompt, how an answer is judged. Imports no torch.

A document is a plain mapping in the layout of the data set on the hub; rows of other known layouts are turned into it
by `Layout`s. A task never sees a model: `evaluation.task_scores` asks the model and hands what it said back to `grade`.

    prompt = description + (question + delimiter + answer + separator) for every shot + question

Kinds and what they need beside `question`:

    multiple_choice   choices, gold; `contexts` instead where the question and not the continuation differs by choice
    classification    the same, and `texts` for models with a classification head
    generate          answer, grade, until, max_new_tokens
    perplexity        question (the whole text)
    code              program, until, max_new_tokens; num_samples and temperature where pass@k with k > 1 is wanted
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from subspace.core.errors import DataError
from subspace.evaluation.sandbox.program import Program

__all__ = ["Doc", "Kind", "Layout", "Source", "Task"]

Kind = Literal["multiple_choice", "classification", "generate", "perplexity", "code"]
Doc = Mapping[str, Any]
"""One document, in the layout of the hub data set."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from when nobody names another place.

    Attributes:
        hub: Data set id on the Hugging Face hub; "" for a task that always reads a local file.
        subset: Its configuration, or None.
        split: The split that is scored.
        fewshot_split: The split that shots are taken from, or None for a task without shots.
    """

    hub: str
    subset: str | None
    split: str
    fewshot_split: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout of rows.

    Attributes:
        columns: Columns that a row of this layout has; others are ignored.
        to_doc: Row to document; None leaves the row out (another subject, no gold label). A ValueError, KeyError,
            TypeError or IndexError says that the row's values are not what the columns promise.
    """

    columns: tuple[str, ...]
    to_doc: Callable[[Mapping[str, Any]], Doc | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task. Functions get a document and must be pure.

    Attributes:
        name: Such as `gsm8k` or `mmlu/anatomy`.
        version: Raised whenever prompts, gold answers or the reading of answers change; scores of two versions are not
            compared.
        kind: How the model is asked.
        source: Where documents come from.
        layouts: Layouts of rows that are understood, the hub's first.
        metrics: Names of what is measured, the one that decides `correct` first. Higher is better but for perplexity.
        question: The part of a prompt that asks, without the answer.
        answer: The right answer as a shot shows it.
        choices: The possible answers, in order.
        gold: Index of the right one.
        contexts: One question per choice; the continuation `answer` is then the same for all (partial evaluation).
        texts: Text and second text (or None) for a model with a classification head.
        labels: Names of the classes of such a head, by index; `choices` has the words that a language model says.
        grade: From document and generated text to the value of every metric.
        read: What is taken out of a generated text as the answer, for the eye; None where nothing is found.
        program: From document and completion to the program under test, and its tests (`code`).
        description: Text before everything, by document.
        group: Shots are taken from documents of the same group only; `limit` counts per group.
        identify: A name for a document that is stable over runs, from it and its index in its group.
        num_fewshot: Shots by default.
        sampler: first: the first of the few-shot split; random: drawn anew for every document, as the harness does.
        delimiter: Between question and answer.
        separator: After a shot.
        until: Texts that end an answer.
        max_new_tokens: Tokens of an answer at the most.
        num_samples: Answers to one document; more than one are sampled.
        temperature: Of the sampling; 0: greedy.
    """

    name: str
    version: int
    kind: Kind
    source: Source
    layouts: tuple[Layout, ...]
    metrics: tuple[str, ...]
    question: Callable[[Doc], str]
    answer: Callable[[Doc], str] | None = None
    choices: Callable[[Doc], Sequence[str]] | None = None
    gold: Callable[[Doc], int] | None = None
    contexts: Callable[[Doc], Sequence[str]] | None = None
    texts: Callable[[Doc], tuple[str, str | None]] | None = None
    labels: tuple[str, ...] = ()
    grade: Callable[[Doc, str], Mapping[str, float]] | None = None
    read: Callable[[str], str | None] | None = None
    program: Callable[[Doc, str], Program] | None = None
    description: Callable[[Doc], str] = lambda doc: ""
    group: Callable[[Doc], str] = lambda doc: ""
    identify: Callable[[Doc, int], str] | None = None
    num_fewshot: int = 0
    sampler: Literal["first", "random"] = "random"
    delimiter: str = " "
    separator: str = "\n\n"
    until: tuple[str, ...] = ()
    max_new_tokens: int = 256
    num_samples: int = 1
    temperature: float = 0.0

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value of the first metric is the better one."""
        return self.kind == "perplexity"

    def to_doc(self, row: Mapping[str, Any], place: str) -> Doc | None:
        """Return the document that a row holds, None if the row is not of this task.

        Raises:
            DataError: E-DAT-004 if the row has the columns of no layout; E-DAT-005 if its values do not fit.
        """
        layout = next((each for each in self.layouts if all(name in row for name in each.columns)), None)
        if layout is None:
            raise DataError(
                "E-DAT-004",
                where=place,
                found=f"columns {', '.join(map(str, row)) or 'none'}",
                expected=f"{self.name}: {' or '.join(', '.join(each.columns) for each in self.layouts)}",
            )
        try:
            return layout.to_doc(row)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                "E-DAT-005",
                where=place,
                found=f"a row that {self.name} cannot use ({type(error).__name__}: {error})",
                expected=f"{', '.join(layout.columns)} as in the published data set",
            ) from error

    def target(self, doc: Doc) -> str:
        """Return the right answer as it stands in a shot."""
        if self.answer is not None:
            return self.answer(doc)
        assert self.choices is not None
        assert self.gold is not None
        return self.choices(doc)[self.gold(doc)]

    def shown(self, doc: Doc) -> str:
        """Return the question of a shot; with `contexts`, the one of the right choice."""
        if self.contexts is None:
            return self.question(doc)
        assert self.gold is not None
        return self.contexts(doc)[self.gold(doc)]

    def preamble(self, doc: Doc, shots: Sequence[Doc]) -> str:
        """Return what stands before the question: description and shots."""
        told = (self.shown(shot) + self.delimiter + self.target(shot) + self.separator for shot in shots)
        return self.description(doc) + "".join(told)

    def prompt(self, doc: Doc, shots: Sequence[Doc] = ()) -> str:
        """Return the whole prompt for a document."""
        return self.preamble(doc, shots) + self.question(doc)
