"""Decoding, greedy or sampled, one token of every row at a time, with the mask and the positions stated, never guessed.

`generate` of transformers takes unset options from the model's own `generation_config` (sampling, repetition penalty,
minimum length), infers a missing mask from the pad token, and under PEFT loses the positions of virtual tokens. These
two loops know none of that: a row's tokens are the argmax of the logits its own tokens lead to, or drawn from their
softmax by the row's own random numbers.

b rows, t tokens of the longest prompt, p virtual tokens (0 without prompt or prefix tuning), d hidden size.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from subspace.evaluation.inference import device_of

__all__ = ["Pick", "context_length", "greedy_tokens", "sampled_pick"]

Pick = Callable[[Tensor], Tensor]
"""From logits (b, v) to the token of every row (b,)."""


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(dim=-1)


def sampled_pick(seeds: Sequence[int], temperature: float) -> Pick:
    """Return a choice of tokens from softmax(logits / temperature), one stream of random numbers per row.

    A row draws one number in [0, 1) per token and takes the token where the summed probabilities pass it, so that what
    is sampled depends on the row's seed and not on its neighbours.
    """
    draws = [random.Random(seed) for seed in seeds]

    def pick(logits: Tensor) -> Tensor:
        sums = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
        drawn = torch.tensor([[each.random()] for each in draws], dtype=sums.dtype, device=sums.device)
        return torch.searchsorted(sums, drawn * sums[:, -1:], right=True).squeeze(1).clamp(max=logits.shape[1] - 1)

    return pick


@torch.no_grad()
def greedy_tokens(model: Any, prompts: Sequence[Sequence[int]], pick: Pick = _likeliest) -> Iterator[Tensor]:
    """Yield the next token of every prompt (b,), then the next, without end; the caller stops.

    Take its values while the model is in evaluation mode (`looking_at`). `pick` chooses where not the likeliest.
    """
    base, virtual, num_virtual = _virtual_tokens(model, len(prompts))
    loop = _continue_answer if base.config.is_encoder_decoder else _continue_prompt
    yield from loop(base, prompts, virtual, num_virtual, pick)


def _continue_prompt(
    base: Any, prompts: Sequence[Sequence[int]], virtual: Any, num_virtual: int, pick: Pick
) -> Iterator[Tensor]:
    device = device_of(base)
    ids, mask = _padded(prompts, "left", device)
    # A row's real tokens count on from the virtual ones, wherever its padding ends.
    positions = num_virtual + (mask.cumsum(dim=1) - 1).clamp(min=0)
    inputs: dict[str, Any] = {"input_ids": ids}
    cache = None
    if isinstance(virtual, Tensor):
        embedded = base.get_input_embeddings()(ids)
        inputs = {"inputs_embeds": torch.cat([virtual.to(embedded.dtype), embedded], dim=1)}
        first = torch.arange(num_virtual, device=device).expand(len(prompts), -1)
        positions = torch.cat([first, positions], dim=1)
    elif virtual is not None:
        cache = virtual
    mask = _ones_before(mask, num_virtual)
    accepted = inspect.signature(type(base).forward).parameters
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    while True:
        if "position_ids" in accepted:
            inputs["position_ids"] = positions
        output = base(**inputs, **last_only, attention_mask=mask, past_key_values=cache, use_cache=True)
        tokens = pick(output.logits[:, -1])
        yield tokens
        cache, inputs = output.past_key_values, {"input_ids": tokens[:, None]}
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)


def _continue_answer(
    base: Any, prompts: Sequence[Sequence[int]], virtual: Any, num_virtual: int, pick: Pick
) -> Iterator[Tensor]:
    device = device_of(base)
    ids, mask = _padded(prompts, "right", device)
    embedded = base.get_input_embeddings()(ids)
    cache = None
    if isinstance(virtual, Tensor):
        embedded = torch.cat([virtual[:, :num_virtual].to(embedded.dtype), embedded], dim=1)
        mask = _ones_before(mask, num_virtual)
    elif virtual is not None:
        cache = virtual
    encoded = base.get_encoder()(inputs_embeds=embedded, attention_mask=mask)
    tokens = torch.full((len(prompts),), base.config.decoder_start_token_id, device=device)
    while True:
        output = base(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=tokens[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        tokens, cache = pick(output.logits[:, -1]), output.past_key_values
        yield tokens


def context_length(model: Any) -> int | None:
    """Return how many tokens, prompt and answer together, `model` can hold; None if it sets no limit."""
    base, _, num_virtual = _virtual_tokens(model, 0)
    if base.config.is_encoder_decoder:
        return None
    limit = getattr(base.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else int(limit) - num_virtual


def _virtual_tokens(model: Any, num_rows: int) -> tuple[Any, Any, int]:
    """Return the plain model, what PEFT puts before every row, and how many tokens that is.

    What is put before is None, embeddings (b, p, d) or, for prefix tuning, a filled cache of keys and values. Adapters
    of the LoRA kind live inside the plain model's modules and need nothing here. With `num_rows` 0 nothing is made.
    """
    if getattr(model, "peft_config", None) is None or not hasattr(model, "get_base_model"):
        return model, None, 0
    settings = model.active_peft_config
    if not settings.is_prompt_learning:
        return model.get_base_model(), None, 0
    virtual = model.get_prompt(batch_size=num_rows) if num_rows else None
    return model.get_base_model(), virtual, int(settings.num_virtual_tokens)


def _padded(prompts: Sequence[Sequence[int]], side: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and mask, both (b, t); what stands under a 0 of the mask is never seen, so its id does not matter."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if side == "left" else slice(0, len(prompt))
        ids[row, place] = torch.tensor(list(prompt), dtype=torch.long)
        mask[row, place] = 1
    return ids.to(device), mask.to(device)


def _ones_before(mask: Tensor, count: int) -> Tensor:
    return torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
