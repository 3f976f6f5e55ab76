"""A language model cut at its last hidden states, so that logits can be made for a few positions at a time.

Both halves are the model's own forward pass. For the first, its decoder hands on no position, so that the head has
nothing to do; for the second, the decoder is not run but hands on given rows. Whatever a model does between its decoder
and its logits - scaling, a bias, soft capping, an adapter on the head - is therefore done, and done once.

b rows, t positions, d hidden size, v vocabulary, n chosen positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from subspace.core.errors import ConfigError

__all__ = ["SplitHead", "Targets", "targets_of"]

_KEY = "training.loss_chunk_tokens"


class Targets(NamedTuple):
    """Where a batch has targets, all (n,)."""

    places: Tensor
    """Rows of the hidden states, flattened to (b t, d), whose logits predict them."""
    labels: Tensor
    """Tokens to predict."""
    rows: Tensor
    """Row of the batch that each lies in."""


class SplitHead:
    """The two halves of a causal or sequence-to-sequence model.

    Args:
        model: A transformers model, plain or wrapped by PEFT.

    Attributes:
        output: The module that makes logits.

    Raises:
        ConfigError: E-CFG-014 if it has no decoder or no head that could be told apart.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        find = getattr(self._plain, "get_decoder", None)
        self._decoder: Any = find() if find is not None else None
        self.output: nn.Module | None = getattr(self._plain, "get_output_embeddings", lambda: None)()
        if self._decoder is None or self._decoder is self._plain or self.output is None:
            self._refuse("no decoder and head that are modules of their own")
        self._kind: Any = None

    def hidden_states(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the last hidden states, (b, t, d), of what the model's forward takes; virtual positions come first.

        Raises:
            ConfigError: E-CFG-014 if the logits do not follow from them alone.
        """
        caught: list[Tensor] = []

        def catch(_: nn.Module, __: Any, output: Any) -> Any:
            if getattr(output, "last_hidden_state", None) is None:
                self._refuse("a decoder that does not name its last hidden states")
            caught.append(output.last_hidden_state)
            self._kind = type(output)
            return self._kind(**{**output, "last_hidden_state": output.last_hidden_state[:, :0]})

        handle = self._decoder.register_forward_hook(catch)
        try:
            logits = self._model(**inputs).logits
        finally:
            handle.remove()
        if len(caught) != 1 or logits.shape[:2] != (caught[0].shape[0], 0):
            self._refuse("logits that do not follow from its decoder's last hidden states")
        return caught[0]

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits (n, v) of hidden states (n, d). `hidden_states` comes first."""
        size = rows.shape[0]
        words = torch.zeros((1, size), dtype=torch.long, device=rows.device)
        inputs: dict[str, Any] = {"input_ids": words}
        if self._plain.config.is_encoder_decoder:
            inputs = {"encoder_outputs": _encoded(rows), "decoder_input_ids": words}
        with _answering(self._decoder, lambda: self._kind(last_hidden_state=rows[None])):
            # not a call: hooks of the model itself put prompts before its input, or move it
            logits: Tensor = self._plain.forward(**inputs, use_cache=False).logits
        if logits.shape[:2] != (1, size):
            self._refuse("logits that are not one for each hidden state")
        return logits[0]

    def trained(self) -> tuple[nn.Parameter, ...]:
        """Return the trained parameters that the logits may depend on beside the hidden states, each once."""
        stacks = {id(self._decoder)}
        if self._plain.config.is_encoder_decoder:
            stacks.add(id(self._plain.get_encoder()))
        assert self.output is not None
        found = {id(value): value for value in (*_outside(self._plain, stacks), *self.output.parameters())}
        return tuple(value for value in found.values() if value.requires_grad)

    def _refuse(self, found: str) -> NoReturn:
        raise ConfigError(
            "E-CFG-014",
            where=_KEY,
            found=f"{type(self._plain).__name__} has {found}",
            action="Leave it out: the loss of this model cannot be cut into chunks.",
        )


def targets_of(labels: Tensor, num_positions: int, *, shifted: bool, ignored: int) -> Targets:
    """Return where labels (b, t) count among `num_positions` hidden states a row, of which the last t are the labels'.

    Args:
        labels: Tokens; `ignored` where a position does not count.
        num_positions: t, and the virtual positions before them.
        shifted: Whether position i predicts label i + 1 (causal) instead of label i.
        ignored: The label that does not count.
    """
    wanted = labels[:, 1:] if shifted else labels
    length = max(1, wanted.shape[1])
    # places as numbers and not as a mask: a plan's fake tensors know how many there are
    chosen = (wanted != ignored).flatten().nonzero().squeeze(1)
    rows = chosen // length
    places = rows * num_positions + (num_positions - labels.shape[1]) + chosen % length
    return Targets(places, wanted.flatten().index_select(0, chosen), rows)


def _encoded(rows: Tensor) -> Any:
    from transformers.modeling_outputs import BaseModelOutput

    return BaseModelOutput(last_hidden_state=rows[None])


def _outside(module: nn.Module, stacks: set[int]) -> Iterator[nn.Parameter]:
    """Yield the parameters of `module` that lie in none of the stacks."""
    if id(module) in stacks:
        return
    yield from module.parameters(recurse=False)
    for child in module.children():
        yield from _outside(child, stacks)


@contextmanager
def _answering(module: Any, answer: Callable[[], Any]) -> Iterator[None]:
    """Let `module` answer instead of computing."""
    own = vars(module).get("forward")
    vars(module)["forward"] = lambda *_, **__: answer()
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own
