"""How likely a continuation is after a context: the sum of the log-probabilities of its tokens, in nats.

What does not fit into the model's context is cut from the left, as in lm-evaluation-harness 0.4; `pairs` says which
tokens are the continuation's.

b rows, t positions, d hidden size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subspace.core.errors import ConfigError, NumericsError
from subspace.evaluation.answer import Progress
from subspace.evaluation.inference import device_of, looking_at
from subspace.evaluation.pairs import Pair, encode_pair, encode_pairs, encode_text, first_token, longest_input
from subspace.models.split_head import SplitHead

__all__ = ["Likelihood", "encode_pair", "encode_text", "log_likelihoods", "longest_input", "rolling_log_likelihoods"]

_POSITIONS_AT_ONCE = 1024
"""Positions whose logits exist at one moment."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely one continuation is.

    Attributes:
        log_likelihood: Sum of ln p over its tokens; -inf where it could not be measured.
        num_tokens: Its tokens.
        is_greedy: Every token is the likeliest one at its place.
        error: Why it could not be measured, or None.
    """

    log_likelihood: float
    num_tokens: int
    is_greedy: bool
    error: str | None = None


def log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    progress: Progress | None = None,
) -> list[Likelihood]:
    """Return how likely each continuation is after its context, in order.

    Contexts that several one-token continuations share are read once. The result does not depend on the order of the
    pairs; batches of another size may change the last digits.

    Args:
        model: A causal or sequence-to-sequence model, plain or wrapped by PEFT.
        tokenizer: Its tokenizer.
        pairs: Context and continuation of each.
        batch_size: Inputs read at once.
        progress: Called with pairs done and pairs in all.

    Raises:
        NumericsError: E-NUM-001 if a log-probability is not finite.
    """
    seq2seq = bool(model.config.is_encoder_decoder)
    encoded = encode_pairs(tokenizer, pairs, seq2seq)
    return _measure(model, encoded, longest_input(model, tokenizer), batch_size, progress)


def rolling_log_likelihoods(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int, progress: Progress | None = None
) -> list[Likelihood]:
    """Return how likely whole texts of any length are.

    A text is cut into windows as long as the model's context; every token is predicted once, after at most that many.
    The first one is predicted after the token that begins texts. `is_greedy` is not asked.

    Raises:
        ConfigError: E-EVL-001 for a sequence-to-sequence model, which reads no bare text.
    """
    if model.config.is_encoder_decoder:
        raise ConfigError(
            "E-EVL-001",
            where="perplexity",
            found="a sequence-to-sequence model",
            expected="a causal model: only that one gives every token of a text a probability",
        )
    limit = longest_input(model, tokenizer)
    first = first_token(tokenizer)
    windows: list[Pair] = []
    owners: list[int] = []
    for owner, text in enumerate(texts):
        found = _windows(encode_text(tokenizer, text), first, limit)
        windows += found
        owners += [owner] * len(found)
    measured = _measure(model, windows, limit, batch_size, progress)
    totals, counts = [0.0] * len(texts), [0] * len(texts)
    for owner, each in zip(owners, measured, strict=True):
        totals[owner] += each.log_likelihood
        counts[owner] += each.num_tokens
    return [Likelihood(total, count, False) for total, count in zip(totals, counts, strict=True)]


def _windows(tokens: Sequence[int], first: int, limit: int) -> list[Pair]:
    """Cut a text into contexts and what follows them; the last window reaches back over what is already scored."""
    found: list[Pair] = []
    for start in range(0, len(tokens), limit):
        end = min(start + limit, len(tokens))
        wanted = list(tokens[start:end])
        before = [first] if start == 0 else list(tokens[end - limit - 1 : start])
        found.append((before, wanted))
    return found


def _measure(
    model: Any, pairs: Sequence[Pair], limit: int, batch_size: int, progress: Progress | None
) -> list[Likelihood]:
    outcomes: dict[int, Likelihood] = {}
    seq2seq = bool(model.config.is_encoder_decoder)
    sharing: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for index, (before, wanted) in enumerate(pairs):
        if not wanted or len(wanted) > limit:
            problem = "it has no token of its own" if not wanted else f"{len(wanted)} tokens, the model holds {limit}"
            outcomes[index] = Likelihood(float("-inf"), len(wanted), False, f"the continuation: {problem}")
        elif seq2seq:
            sharing.setdefault((tuple(before[-limit:]), tuple(wanted)), []).append(index)
        else:
            sharing.setdefault((tuple((before + wanted)[-limit - 1 : -1]), ()), []).append(index)
    # Longest first: what does not fit into memory fails at once. Then by content, so that order does not matter.
    order = sorted(sharing, key=lambda key: (-len(key[0]), key))
    score = _batch_scorer(model)
    with looking_at(model):
        for start in range(0, len(order), batch_size):
            keys = order[start : start + batch_size]
            wanted_of = [[pairs[index][1] for index in sharing[key]] for key in keys]
            for key, rows in zip(keys, score([list(key[0]) for key in keys], wanted_of), strict=True):
                outcomes.update(zip(sharing[key], rows, strict=True))
            if progress is not None:
                progress(len(outcomes), len(pairs))
    return [outcomes[index] for index in range(len(pairs))]


Scorer = Callable[[list[list[int]], list[list[list[int]]]], list[list[Likelihood]]]


def _batch_scorer(model: Any) -> Scorer:
    try:
        head: SplitHead | None = SplitHead(model)
    except ConfigError:
        head = None  # the logits of every position, then
    return lambda inputs, wanted: _score_batch(model, head, inputs, wanted)


def _score_batch(
    model: Any, head: SplitHead | None, inputs: list[list[int]], wanted: list[list[list[int]]]
) -> list[list[Likelihood]]:
    """Score a batch: inputs of the model, and for each the continuations that end with it."""
    device = device_of(model)
    seq2seq = bool(model.config.is_encoder_decoder)
    ids, mask = _right_padded(inputs)
    arguments: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "use_cache": False}
    if seq2seq:
        labels, real = _right_padded([rows[0] for rows in wanted])
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden_labels = labels.masked_fill(real == 0, -100).to(device)
        arguments["decoder_input_ids"] = plain.prepare_decoder_input_ids_from_labels(labels=hidden_labels)
        length, ends = labels.shape[1], [len(rows[0]) for rows in wanted]
    else:
        length, ends = ids.shape[1], [len(row) for row in inputs]
    places, targets = [], []
    for row, (end, continuations) in enumerate(zip(ends, wanted, strict=True)):
        for tokens in continuations:
            places += [(row, position) for position in range(end - len(tokens), end)]
            targets += tokens
    values, greedy = _chosen(model, head, arguments, places, targets, length)
    return _gathered(values, greedy, wanted)


def _chosen(
    model: Any,
    head: SplitHead | None,
    arguments: dict[str, Any],
    places: list[tuple[int, int]],
    targets: list[int],
    length: int,
) -> tuple[list[float], list[bool]]:
    """Return ln p of each target at its place, and whether it is the likeliest token there.

    Places count among the last `length` positions: virtual ones come first.
    """
    whole = head.hidden_states(arguments) if head is not None else model(**arguments).logits
    whole = whole[:, whole.shape[1] - length :]
    unique = sorted(set(places))
    number = {place: index for index, place in enumerate(unique)}
    chosen = whole[[row for row, _ in unique], [position for _, position in unique]]
    wanted: dict[int, list[int]] = {}
    for index, place in enumerate(places):
        wanted.setdefault(number[place], []).append(index)
    values, greedy = [0.0] * len(places), [False] * len(places)
    for start in range(0, len(unique), _POSITIONS_AT_ONCE):
        part = chosen[start : start + _POSITIONS_AT_ONCE]
        logits = (head.logits(part) if head is not None else part).float()
        logs, likeliest = logits.log_softmax(dim=-1), logits.argmax(dim=-1).tolist()
        indices = [(at, index) for at in range(part.shape[0]) for index in wanted[start + at]]
        rows = torch.tensor([at for at, _ in indices], device=logs.device)
        columns = torch.tensor([targets[index] for _, index in indices], device=logs.device)
        for (at, index), value in zip(indices, logs[rows, columns].tolist(), strict=True):
            values[index], greedy[index] = value, likeliest[at] == targets[index]
    return values, greedy


def _gathered(values: list[float], greedy: list[bool], wanted: list[list[list[int]]]) -> list[list[Likelihood]]:
    found, start = [], 0
    for continuations in wanted:
        rows = []
        for tokens in continuations:
            end = start + len(tokens)
            total = sum(values[start:end])
            if total != total or total in (float("inf"), float("-inf")):
                raise NumericsError(
                    "E-NUM-001",
                    where="log-likelihood of a continuation",
                    found=f"it is {total}",
                    action="The model's weights or activations overflow; try another precision.",
                )
            rows.append(Likelihood(total, len(tokens), all(greedy[start:end])))
            start = end
        found.append(rows)
    return found


def _right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (b, t)."""
    ids = torch.zeros(len(rows), max(len(row) for row in rows), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids, mask
