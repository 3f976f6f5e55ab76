"""Answers of a model: generated texts for prompts, class probabilities for rows.

Everything is in full, and greedy unless asked otherwise: the same model and prompt give the same answer, whatever else
is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from subspace.core.errors import DataError, SubspaceError
from subspace.evaluation.decoding import Pick, context_length, greedy_tokens, sampled_pick
from subspace.evaluation.inference import device_of, looking_at
from subspace.models.templates import stop_token_ids

__all__ = [
    "Answer",
    "Progress",
    "Sampling",
    "check_prompt",
    "classify",
    "find_answers",
    "generate_answers",
    "stop_tokens",
    "stream_answer",
]

Progress = Callable[[int, int], None]
"""Called with the number of rows done and of all rows."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn where the likeliest is not wanted.

    Attributes:
        temperature: Divides the logits.
        seeds: One per prompt: the same seed and prompt give the same answer, whatever else is in the batch.
    """

    temperature: float
    seeds: tuple[int, ...]

    def of(self, rows: Sequence[int]) -> Sampling:
        """Return the same for some of the prompts."""
        return Sampling(self.temperature, tuple(self.seeds[row] for row in rows))

    def pick(self) -> Pick:
        """Return the choice of tokens, its random numbers from the start."""
        return sampled_pick(self.seeds, self.temperature)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one prompt.

    Attributes:
        text: Generated text without special tokens; "" if there was an error.
        tokens: Generated tokens, the stop token not among them.
        finished: The model ended by itself, not by `max_new_tokens` or its context.
        error: Why there is no answer, or None.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finished: bool = False
    error: str | None = None


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """Return the greedy answer to every prompt, in order.

    Raises:
        DataError: E-DAT-016 if there is no prompt, or one is empty or fills the model's context.
    """
    if not prompts:
        raise DataError("E-DAT-016", where="prompts", found="nothing to predict", action="Give at least one prompt.")
    for index, prompt in enumerate(prompts):
        check_prompt(model, prompt, where=f"prompt {index + 1}")
    answers = find_answers(model, tokenizer, prompts, max_new_tokens, batch_size, progress, keep_errors=False)
    return [answer.text for answer in answers]


def find_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
    *,
    keep_errors: bool = True,
    until: Sequence[str] = (),
    sampling: Sampling | None = None,
) -> list[Answer]:
    """Return the answer to every prompt, in order, with its tokens; greedy unless `sampling` says how.

    Args:
        model: A causal or sequence-to-sequence model, plain or wrapped by PEFT.
        tokenizer: Its tokenizer.
        prompts: Tokens of each prompt, special tokens included.
        max_new_tokens: Tokens of an answer at the most.
        batch_size: Prompts answered at once.
        progress: Called after every batch.
        keep_errors: A row that fails becomes an answer with an error; its batch is asked again row by row. Only running
            out of memory, and a failure of every single row, are raised: then it is not the rows that are wrong.
        until: Texts that end an answer, too; it is cut before the first of them.
        sampling: Temperature, and a seed for every prompt.
    """
    outcomes: dict[int, Answer | Exception] = {}
    usable: list[int] = []
    for index, prompt in enumerate(prompts):
        try:
            check_prompt(model, prompt, where=f"row {index}")
            usable.append(index)
        except DataError as error:
            outcomes[index] = error
    with looking_at(model):
        for places in _batches(model, [prompts[i] for i in usable], max_new_tokens, batch_size):
            batch = [usable[place] for place in places]
            rows = [prompts[index] for index in batch]
            ask = _ask_each if keep_errors else _answer_batch
            drawn = sampling.of(batch) if sampling is not None else None
            outcomes.update(zip(batch, ask(model, tokenizer, rows, max_new_tokens, until, drawn), strict=True))
            if progress is not None:
                progress(len(outcomes), len(prompts))
    return _in_order(outcomes, keep_errors)


def _in_order(outcomes: Mapping[int, Answer | Exception], keep_errors: bool) -> list[Answer]:
    answers, errors = [], []
    for _, outcome in sorted(outcomes.items(), key=lambda item: item[0]):
        if isinstance(outcome, Exception):
            errors.append(outcome)
            name = "" if isinstance(outcome, SubspaceError) else f"{type(outcome).__name__}: "
            outcome = Answer("", error=f"{name}{outcome}")
        answers.append(outcome)
    if errors and (not keep_errors or len(errors) == len(answers)):
        raise errors[0]
    return answers


def _ask_each(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    until: Sequence[str],
    sampling: Sampling | None,
) -> Sequence[Answer | Exception]:
    try:
        return _answer_batch(model, tokenizer, prompts, max_new_tokens, until, sampling)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if len(prompts) == 1:
            return [error]
        return [
            _ask_each(model, tokenizer, [prompt], max_new_tokens, until, sampling.of([row]) if sampling else None)[0]
            for row, prompt in enumerate(prompts)
        ]


def _answer_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    until: Sequence[str] = (),
    sampling: Sampling | None = None,
) -> list[Answer]:
    stops = stop_tokens(model, tokenizer)
    window = max((len(each.encode()) for each in until), default=0) + 1  # a model may spell it byte by byte
    room = _room(model, max(len(prompt) for prompt in prompts), max_new_tokens)
    rows: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    steps = greedy_tokens(model, prompts) if sampling is None else greedy_tokens(model, prompts, sampling.pick())
    for _, tokens in zip(range(room), steps, strict=False):
        for row, token in enumerate(tokens.tolist()):
            if row not in open_rows:
                continue
            if token in stops:
                open_rows.discard(row)
                continue
            rows[row].append(token)
            if until and _holds(_decode(tokenizer, rows[row][-window:]), until):
                open_rows.discard(row)
        if not open_rows:
            break
    texts = [_cut(_decode(tokenizer, tokens), until) for tokens in rows]
    return [Answer(texts[row], tuple(tokens), row not in open_rows) for row, tokens in enumerate(rows)]


def _holds(text: str, until: Sequence[str]) -> bool:
    return any(each in text for each in until)


def _cut(text: str, until: Sequence[str]) -> str:
    """Return a text up to the first of `until`."""
    return text[: min((place for each in until if (place := text.find(each)) >= 0), default=len(text))]


def stream_answer(model: Any, tokenizer: Any, prompt: Sequence[int], max_new_tokens: int) -> Iterator[str]:
    """Yield the greedy answer to one prompt piece by piece, as soon as a piece is whole; joined they are the answer.

    Raises:
        DataError: E-DAT-016 if the prompt is empty or fills the model's context.
    """
    check_prompt(model, prompt, where="prompt")
    stops, room = stop_tokens(model, tokenizer), _room(model, len(prompt), max_new_tokens)
    tokens: list[int] = []
    shown, steps = "", greedy_tokens(model, [prompt])
    for _ in range(room):
        with looking_at(model):  # entered anew for every token, so that the caller sees its own modes in between
            token = int(next(steps)[0])
        if token in stops:
            break
        tokens.append(token)
        text = _decode(tokenizer, tokens)
        # A character made of several byte tokens shows as U+FFFD until its last one has come.
        if len(text) > len(shown) and not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    rest = _decode(tokenizer, tokens)[len(shown) :]
    if rest:
        yield rest


def classify(
    model: Any,
    rows: Sequence[Mapping[str, Sequence[int]]],
    batch_size: int,
    progress: Progress | None = None,
) -> list[list[float]]:
    """Return the class logits of every row, in order.

    Rows of one length share a batch, so there is no padding: the last position of a decoder is its last token, with
    virtual tokens before it or not, and nothing depends on which rows meet.

    Args:
        model: A sequence classification model.
        rows: `input_ids` of each row, and `token_type_ids` where the model has two segments.
        batch_size: Rows in a batch at the most.
        progress: Called after every batch.
    """
    device, logits = device_of(model), [[0.0]] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["input_ids"]), index))
    # Without a pad token transformers reads the last position, but only of one row at a time.
    width = batch_size if getattr(model.config.get_text_config(), "pad_token_id", None) is not None else 1
    done = 0
    with looking_at(model):
        for batch in _runs(order, [len(row["input_ids"]) for row in rows], width):
            inputs = {
                name: torch.tensor([list(rows[index][name]) for index in batch], device=device)
                for name in rows[batch[0]]
            }
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            for index, row in zip(batch, model(**inputs).logits.float().tolist(), strict=True):
                logits[index] = row
            done += len(batch)
            if progress is not None:
                progress(done, len(rows))
    return logits


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's end, its template's end of turn, the model's own list."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return frozenset([*stop_token_ids(tokenizer), *([listed] if isinstance(listed, int) else listed or ())])


def check_prompt(model: Any, prompt: Sequence[int], where: str) -> None:
    """Refuse a prompt that is empty or leaves no room for one token.

    Raises:
        DataError: E-DAT-016.
    """
    limit = context_length(model)
    if not len(prompt):
        raise DataError("E-DAT-016", where=where, found="the prompt is empty", action="Give at least one token.")
    if limit is not None and len(prompt) >= limit:
        raise DataError(
            "E-DAT-016",
            where=where,
            found=f"the prompt has {len(prompt)} tokens",
            expected=f"fewer than the {limit} of the model's context",
            action="Shorten it.",
        )


def _batches(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch_size: int) -> Iterator[list[int]]:
    """Yield indices of similar length, longest first: what does not fit into memory fails at once, not at the end.

    A prompt so long that its answer reaches the end of the context shares a batch only with its equals, because the
    length of its answer must not depend on its neighbours.
    """
    limit = context_length(model)
    lengths = [len(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (-lengths[index], index))
    tight = [index for index in order if limit is not None and lengths[index] + max_new_tokens > limit]
    roomy = order[len(tight) :]
    yield from _runs(tight, lengths, batch_size)
    for start in range(0, len(roomy), batch_size):
        yield roomy[start : start + batch_size]


def _runs(order: Sequence[int], lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Cut `order`, which is sorted by length, into batches of one length each."""
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == batch_size or lengths[index] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _room(model: Any, prompt_length: int, max_new_tokens: int) -> int:
    limit = context_length(model)
    return max_new_tokens if limit is None else min(max_new_tokens, limit - prompt_length)


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
