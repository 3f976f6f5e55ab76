"""Updates in the backward pass give the same weights, and gradients are gone as soon as they have been used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from subspace_runs import OPTIMIZERS, WHOLE, gradients
from torch import Tensor, nn

from subspace.core.errors import ConfigError
from subspace.models.tiny import tiny_model
from subspace.optim.engine import SubspaceOptimizer

TOLERANCE = 1e-6
INTERVAL, STEPS, ACCUMULATION, CLIP = 3, 7, 8, 1.0
Sampler = Callable[[int, int], None]


def tied_llama(num_layers: int = 1) -> nn.Module:
    """Return a decoder with tied embeddings that recomputes activations."""
    model = tiny_model("qwen2", seed=5, vocab_size=64, hidden_size=32, num_layers=num_layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer transformers have another name for it
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return model


def optimizer_of(kind: str, model: nn.Module, **options: Any) -> SubspaceOptimizer:
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    rest = [weight for weight in model.parameters() if weight.ndim != 2]
    maker: Any = OPTIMIZERS[kind]
    options = {"refresh_interval": INTERVAL, "lr": 1e-3, **options}
    return maker([{"params": matrices, "rank": 4}, {"params": rest}], weight_decay=0.1, **options)


def train(
    model: nn.Module,
    optimizer: SubspaceOptimizer,
    *,
    accumulation: int,
    clip: float | None,
    sample: Sampler = lambda step, micro: None,
) -> list[float]:
    """Train with a cosine schedule; return the norms before clipping. `sample` is called after each micro-batch."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    norms = []
    for step in range(STEPS):
        for micro in range(accumulation):
            generator = torch.Generator().manual_seed(100 * step + micro)
            tokens = torch.randint(3, 64, (1, 8), generator=generator)
            (4 * model(input_ids=tokens, labels=tokens).loss / accumulation).backward()
            sample(step, micro)
        if clip is not None:
            norms.append(float(optimizer.clip_grad_norm_(clip)))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return norms


def both_ways(kind: str, *, accumulation: int, clip: float | None, **options: Any) -> tuple[float, bool]:
    """Return the largest difference of weights, and whether the norms before clipping agree."""
    models, norms = [tied_llama(), tied_llama()], []
    start = [weight.detach().clone() for weight in models[0].parameters()]
    for model, update in zip(models, ("after_backward", "in_backward"), strict=True):
        optimizer = optimizer_of(kind, model, update=update, **options)
        norms.append(train(model, optimizer, accumulation=accumulation, clip=clip))
    assert clip is None or sum(norm > clip for norm in norms[0]) > STEPS // 2  # it clips
    weights, others = (list(model.parameters()) for model in models)
    assert max(float((w - s).detach().abs().max()) for w, s in zip(weights, start, strict=True)) > 1e-3
    largest = max(float((w - o).detach().abs().max()) for w, o in zip(weights, others, strict=True))
    return largest, norms[0] == pytest.approx(norms[1], rel=1e-5)


def assert_same(kind: str, **options: Any) -> None:
    largest, norms_agree = both_ways(kind, **options)
    assert largest <= TOLERANCE
    assert norms_agree


@pytest.mark.parametrize("kind", ["ProjectedAdamW", "ProjectedAdafactor", "QuantizedProjectedAdamW"])
def test_deferred_steps_are_the_same(kind: str) -> None:
    assert_same(kind, accumulation=ACCUMULATION, clip=CLIP)


@pytest.mark.parametrize("options", [{"refresh": "staggered"}, {"side": "both", "state_bits": 8}], ids=str)
def test_deferred_steps_are_the_same_with_other_options(options: dict[str, Any]) -> None:
    assert_same("ProjectedAdamW", accumulation=4, clip=None, **options)


@pytest.mark.parametrize("kind", WHOLE)
def test_updates_in_the_hook_are_the_same(kind: str) -> None:
    assert_same(kind, accumulation=1, clip=None)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_full_accumulator_accumulates_and_clips(kind: str) -> None:
    assert_same(kind, accumulation=3, clip=CLIP, full_accumulator=True)


def test_bases_from_the_first_micro_batch() -> None:
    """They have seen a part of the gradient, and so differ; without accumulation it is the whole."""
    assert_same("ProjectedAdamW", accumulation=1, clip=CLIP, refresh_from="micro_batch")
    largest, _ = both_ways("ProjectedAdamW", accumulation=3, clip=CLIP, refresh_from="micro_batch")
    assert TOLERANCE < largest < 1.0


def test_a_basis_from_the_first_micro_batch_serves_the_whole_step() -> None:
    weight = nn.Parameter(torch.zeros(24, 10))
    optimizer = OPTIMIZERS["ProjectedAdamW"]([weight], rank=3, update="in_backward", refresh_from="micro_batch")
    parts = gradients([weight] * 3, 0)
    for part in parts:
        (weight * part).sum().backward()
        assert weight.grad is None
    basis = torch.linalg.svd(parts[0], full_matrices=False).Vh[:3].T
    torch.testing.assert_close(optimizer.state[weight]["basis"], basis)
    torch.testing.assert_close(optimizer.slots[weight].low, sum(parts) @ basis)


@pytest.mark.parametrize("kind", WHOLE)
def test_clipping_of_used_up_gradients_is_refused(kind: str) -> None:
    model = tied_llama()
    optimizer = optimizer_of(kind, model, update="in_backward")
    tokens = torch.arange(3, 11)[None]
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert all(weight.grad is None for weight in model.parameters())
    norm = optimizer.clip_grad_norm_(float("inf"))  # to look at is allowed
    reference = tied_llama()
    reference(input_ids=tokens, labels=tokens).loss.backward()
    expected = torch.nn.utils.clip_grad_norm_(reference.parameters(), float("inf"))
    assert float(norm) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ConfigError) as caught:
        optimizer.clip_grad_norm_(1.0)
    assert caught.value.code == "E-CFG-014"
    assert "full_accumulator" in str(caught.value)


@pytest.mark.parametrize("refresh_from", ["step", "micro_batch"])
def test_live_gradient_bytes(refresh_from: str) -> None:
    """Beside gradients of vectors, at most one matrix has a gradient, except at refreshes from the whole step."""
    model = tied_llama(num_layers=2)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    most = {False: 0, True: 0}
    between = {False: 0, True: 0}
    """Bytes in and between backward passes, in ordinary steps and in those that begin with a refresh."""
    refreshing = True

    def live_bytes() -> int:
        return sum(w.grad.numel() * w.grad.element_size() for w in matrices if w.grad is not None)

    def in_hook(_: Tensor) -> None:
        most[refreshing] = max(most[refreshing], live_bytes())

    def sample(step: int, micro: int) -> None:
        nonlocal refreshing
        between[refreshing] = max(between[refreshing], live_bytes())
        refreshing = (step + (micro == ACCUMULATION - 1)) % INTERVAL == 0

    for weight in matrices:
        weight.register_post_accumulate_grad_hook(in_hook)  # before the optimizer's: the gradient is still there
    optimizer = optimizer_of("ProjectedAdamW", model, update="in_backward", refresh_from=refresh_from)
    for weight in matrices:
        weight.register_post_accumulate_grad_hook(in_hook)
    train(model, optimizer, accumulation=ACCUMULATION, clip=CLIP, sample=sample)

    largest = max(weight.numel() * weight.element_size() for weight in matrices)
    everything = sum(weight.numel() * weight.element_size() for weight in matrices)
    layer = sum(w.numel() * w.element_size() for n, w in model.named_parameters() if ".0." in n and w.ndim == 2)
    assert largest < layer < everything
    assert (most[False], between[False]) == (largest, 0)
    whole_step = refresh_from == "step"
    assert (most[True], between[True]) == ((everything, everything) if whole_step else (largest, 0))


def test_zero_grad_forgets_what_was_accumulated() -> None:
    model = tied_llama()
    optimizer = optimizer_of("ProjectedAdamW", model, update="in_backward")
    train(model, optimizer, accumulation=1, clip=None)
    before = [weight.detach().clone() for weight in model.parameters()]
    tokens = torch.arange(3, 11)[None]
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert any(slot.low is not None for slot in optimizer.slots.values())
    optimizer.zero_grad()
    optimizer.step()
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
