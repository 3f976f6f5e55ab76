"""The tokens of contexts and of what follows them.

    causal     tokens = encode(context + continuation); the continuation's come after the first len(encode(context))
    seq2seq    the encoder reads the context, the decoder is scored on the continuation

Blanks at the end of a context belong to the continuation, because most tokenizers write a blank and its word as one
token. All this is as in lm-evaluation-harness 0.4, so that figures agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subspace.evaluation.decoding import context_length

__all__ = ["Pair", "encode_pair", "encode_pairs", "encode_text", "first_token", "longest_input"]

_DEFAULT_LENGTH = 2048
_UNSET_LENGTH = 10**12

Pair = tuple[list[int], list[int]]
"""Tokens of a context and of what follows it."""


def longest_input(model: Any, tokenizer: Any) -> int:
    """Return how many tokens the model reads at once, virtual ones not counted."""
    limit = context_length(model)
    if limit is not None:
        return limit
    found = getattr(model.config, "n_positions", None) or getattr(tokenizer, "model_max_length", None)
    return int(found) if found is not None and found < _UNSET_LENGTH else _DEFAULT_LENGTH


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text with the tokenizer's special tokens, the first of which is never doubled."""
    first = tokenizer.bos_token or tokenizer.eos_token
    plain = bool(first) and text.startswith(first)
    return list(tokenizer.encode(text, add_special_tokens=not plain))


def encode_pair(
    tokenizer: Any,
    context: str,
    continuation: str,
    *,
    seq2seq: bool = False,
    encoded_context: list[int] | None = None,
) -> Pair:
    """Return the tokens of a context and of what follows it.

    Args:
        tokenizer: Of the model.
        context: May be empty: then the token that begins texts stands before.
        continuation: What is scored, with the blank that separates it.
        seq2seq: The parts go into encoder and decoder, and are encoded apart.
        encoded_context: The tokens of the context without blanks at its end, where they are known.
    """
    if not context:
        tokens = list(tokenizer.encode(continuation, add_special_tokens=False))
        first = first_token(tokenizer)
        return (tokens[:1], tokens[1:]) if tokens[:1] == [first] else ([first], tokens)
    bare = context.rstrip()
    continuation, context = context[len(bare) :] + continuation, bare
    before = encode_text(tokenizer, context) if encoded_context is None else encoded_context
    if seq2seq:
        return before, list(tokenizer.encode(continuation, add_special_tokens=False))
    whole = encode_text(tokenizer, context + continuation)
    return before or [first_token(tokenizer)], whole[len(before) :]


def first_token(tokenizer: Any) -> int:
    """Return the token that begins texts, or the one that ends them."""
    return int(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]], seq2seq: bool) -> list[Pair]:
    """Encode pairs; a context that the choices of one question share, which may be long, is encoded once."""
    known: tuple[str, list[int]] | None = None
    encoded = []
    for context, continuation in pairs:
        bare = context.rstrip()
        if bare and (known is None or known[0] != bare):
            known = bare, encode_text(tokenizer, bare)
        before = known[1] if bare and known is not None else None
        encoded.append(encode_pair(tokenizer, context, continuation, seq2seq=seq2seq, encoded_context=before))
    return encoded
