"""Trained weights as int8 codes: unbiased, exact where nothing changed, the same arithmetic as plain weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from plan.live import LENGTH, ROWS, build, real_flops, real_loss, real_saved, real_saved_recomputing
from subspace.core.seeding import derive_seed
from subspace.models import int8_modules as int8_modules_room
from subspace.models import int8_weights
from subspace.models.config import ModelConfig
from subspace.models.int8_modules import (
    int8_modules,
    int8_notes,
    int8_tensors,
    plain_weights,
    store_int8,
    unpacked_weight,
)
from subspace.models.int8_weights import Int8Weight, WeightHandle, num_groups
from subspace.models.load import load_model, meta_model
from subspace.models.quantized import weight_bytes
from subspace.models.tiny import tiny_model
from subspace.optim.adamw import WideAdamW, build_adamw
from subspace.optim.settings import OptimizerSettings
from subspace.plan.graph import measure
from subspace.plan.shapes import TensorSpec
from subspace.training.loss import summed_loss

SHAPES = [(3, 1), (5, 64), (7, 256), (5, 257), (6, 896), (2, 4099)]
FAMILIES = ["llama", "qwen2", "gemma", "bert", "t5", "gpt2"]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coded(family: str, **options: Any) -> tuple[Any, Any, str]:
    """Return (model with codes, the same function with plain weights, task)."""
    torch.manual_seed(0)
    model, task = build(family, device="cpu", **options)
    model.eval()
    store_int8(model)
    plain = copy.deepcopy(model)
    with plain_weights(plain):
        plain = copy.deepcopy(plain)
    return model, plain.requires_grad_(True), task


# The weight.


@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_is_within_a_code(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    stored = Int8Weight.nearest(weight)
    width = -(-shape[1] // num_groups(shape[1]))
    steps = stored.scales.float().repeat_interleave(width, dim=1)[:, : shape[1]]
    assert stored.scales.shape == (shape[0], num_groups(shape[1]))
    assert (stored.read() - weight).abs().le(0.5001 * steps).all()
    # the range is as narrow as a bfloat16 scale allows, in every group
    assert steps.max() <= weight.abs().max() / 127 * (1 + 2**-7)
    other = weight + 0.3 * steps
    stored.write(other, seed=1)
    assert (stored.read() - other).abs().lt(1.02 * steps).all()


def test_groups_of_one_sign_and_of_nothing() -> None:
    weight = torch.stack([torch.full((512,), 0.7), torch.linspace(-0.2, -0.1, 512), torch.zeros(512)])
    stored = Int8Weight.nearest(weight)
    assert (stored.read() - weight).abs().max() < 0.7 / 127
    stored.write(weight, seed=3)
    assert (stored.read() - weight).abs().max() < 0.7 / 127
    assert not stored.read()[2].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_not_changed_keeps_its_code(shape: tuple[int, int]) -> None:
    stored = Int8Weight.nearest(random(*shape))
    codes, scales = stored.codes.clone(), stored.scales.clone()
    for seed in range(20):
        stored.write(stored.read(), seed=seed)
    assert torch.equal(stored.codes, codes)
    assert torch.equal(stored.scales, scales)


def test_updates_below_half_a_code_move_the_weight_in_expectation() -> None:
    """Why rounding is stochastic: 100 updates of a twentieth of a code are five codes, and to nearest none."""
    weight = random(64, 512)
    weight[:, ::256] = 6.0  # holds the range of every group
    stored, nearest = Int8Weight.nearest(weight), Int8Weight.nearest(weight)
    start, update = stored.read(), 0.05 * stored.scales.float().repeat_interleave(256, dim=1)
    update[:, ::256] = 0.0
    for step in range(100):
        stored.write(stored.read() + update, seed=step)
        nearest = Int8Weight.nearest(nearest.read() + update)
    moved = ((stored.read() - start) / (100 * update))[update > 0]
    # the sum of 100 roundings has a deviation of 0.44 of what was added
    assert moved.mean().item() == pytest.approx(1.0, abs=4 * 0.44 / math.sqrt(moved.numel()))
    assert moved.std().item() == pytest.approx(0.44, rel=0.05)
    assert torch.equal(nearest.read(), start)


def test_a_shrinking_group_gets_a_finer_scale() -> None:
    stored = Int8Weight.nearest(random(4, 256))
    before = stored.scales.clone()
    stored.write(stored.read() * 0.5, seed=0)
    assert (stored.scales < 0.52 * before).all()
    stored.write(stored.read() * 3.0, seed=1)
    assert (stored.scales > 1.4 * before).all()
    assert (stored.codes.abs().amax(1) >= 126).all()


def test_rounding_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random(40, 300)
    value = weight + 0.001 * random(40, 300, seed=1)

    def written(seed: int, *parts: slice) -> torch.Tensor:
        stored = Int8Weight.nearest(weight)
        for part in parts or (slice(0, 40),):
            stored.write(value[part], seed=seed, rows=part)
        return stored.codes

    state = torch.random.get_rng_state()
    whole = written(5)
    assert torch.equal(written(5, slice(0, 13), slice(13, 40)), whole)
    assert not torch.equal(written(6), whole)
    monkeypatch.setitem(int8_weights._BLOCK_ELEMENTS, "cpu", 1000)
    assert torch.equal(written(5), whole)
    assert torch.equal(torch.random.get_rng_state(), state), "no random number is drawn"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-4])
def test_reading_rounds_once(dtype: torch.dtype, size: float) -> None:
    stored = Int8Weight.nearest(size * random(6, 600))
    steps = stored.scales.double().repeat_interleave(200, dim=1)
    exact = stored.codes.double() * steps
    assert torch.equal(stored.read().double(), exact)
    assert torch.equal(stored.read(dtype=dtype), exact.to(dtype))
    given = torch.empty(2, 600, dtype=dtype)
    assert stored.read(given, rows=slice(3, 5)) is given
    assert torch.equal(given, exact[3:5].to(dtype))


def test_move_is_the_step_written_at_once() -> None:
    weight, direction = random(30, 300), random(30, 300, seed=1)
    stored, wanted = Int8Weight.nearest(weight), Int8Weight.nearest(weight)
    wanted.write(wanted.read().mul_(1 - 0.01 * 0.1).sub_(direction, alpha=0.01), seed=9)
    stored.move(direction, rate=0.01, decay=0.1, seed=9)
    assert torch.equal(stored.codes, wanted.codes)


def test_the_noise_is_the_hash_that_its_docstring_says() -> None:
    key = derive_seed(3, "int8")

    def noise(place: int) -> float:
        x = (place & 0xFFFFFFFF) ^ (key & 0xFFFFFFFF)
        x = ((x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF) ^ (key >> 32 & 0xFFFFFFFF)
        x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
        return ((x ^ (x >> 16)) >> 8) / 2**24

    for first in (0, 2**31 - 2, 2**32 - 2):
        found = int8_weights._uniform(key, first, 5, torch.device("cpu"))
        assert found.tolist() == [noise(first + place) for place in range(5)]
    many = torch.stack(
        [
            int8_weights._uniform(derive_seed(seed, "int8"), 0, 1 << 16, torch.device("cpu")).double() - 0.5
            for seed in range(8)
        ]
    )
    deviations = many.mean(dim=1) * math.sqrt(12) * 2**8
    related = (many @ many.T * 12 / 2**8)[~torch.eye(8, dtype=torch.bool)]
    assert deviations.abs().max() < 4
    assert related.abs().max() < 4
    assert many.var(dim=1).mul(12).sub(1).abs().max() < 0.02


# The handle.


def test_the_handle_is_a_parameter_without_values() -> None:
    stored = Int8Weight.nearest(random(6, 4))
    handle = WeightHandle(torch.Size((6, 4)), torch.bfloat16, stored)
    assert isinstance(handle, nn.Parameter)
    assert (handle.shape, handle.dtype, handle.untyped_storage().nbytes()) == ((6, 4), torch.bfloat16, 2)
    assert handle.isnan().all(), "whoever reads it instead of `stored` finds out"
    with torch.no_grad(), pytest.raises(RuntimeError, match="single memory location"):
        handle.add_(1.0)
    copied = copy.deepcopy(handle)
    assert copied.stored is not stored
    assert torch.equal(copied.stored.codes, stored.codes)
    assert copied.untyped_storage().nbytes() == 2


# Models.


def test_which_modules_hold_codes() -> None:
    for family, left in (("llama", 0), ("qwen2", 0), ("gemma", 0), ("t5", 2), ("gpt2", 1), ("bert", 4)):
        model, _ = build(family, device="meta")
        names = store_int8(model)
        other = [name for name, p in model.named_parameters() if p.ndim > 1 and not hasattr(p, "stored")]
        assert len(other) == left, other
        assert len(int8_notes(model, names)) == (2 if left else 1)
    bert = tiny_model("bert", "classification")
    assert not [name for name in int8_modules(bert) if "position" in name or "pooler" in name or "classifier" in name]


def test_tied_modules_share_one_weight() -> None:
    model = tiny_model("qwen2")
    store_int8(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding.weight is head.weight
    assert embedding.stored is head.stored is embedding.weight.stored
    for other in (copy.deepcopy(model), model.to(torch.bfloat16), model.to(torch.float32)):
        embedding, head = other.get_input_embeddings(), other.get_output_embeddings()
        assert embedding.weight is head.weight
        assert embedding.stored is head.stored is embedding.weight.stored


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_are_those_of_plain_weights(family: str, mixed: bool) -> None:
    model, plain, task = coded(family)
    losses = []
    for each in (model, plain):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = real_loss(each, task)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    assert {name for name, _ in model.named_parameters()} == wanted.keys()
    assert sum(hasattr(p, "stored") for p in model.parameters()) >= 9
    for name, parameter in model.named_parameters():
        gradient = wanted[name]
        assert gradient is not None
        assert parameter.grad is not None
        assert (parameter.grad.shape, parameter.grad.dtype) == (parameter.shape, parameter.dtype)
        error = (parameter.grad - gradient).norm()
        assert error <= (2e-2 if mixed else 1e-5) * gradient.norm() + 1e-8, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_cast_model_computes_in_its_type(dtype: torch.dtype) -> None:
    model, plain, _ = coded("llama")
    codes = [value.clone() for value in model.buffers() if value.dtype == torch.int8]
    scales = {name: value.clone() for name, value in model.named_buffers() if name.endswith("scales")}
    model, plain = model.to(dtype), plain.to(dtype)
    ids = torch.arange(5, 25)[None]
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)
    assert model(input_ids=ids).logits.dtype == dtype
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert all(p.untyped_storage().nbytes() == p.element_size() for p in model.parameters() if hasattr(p, "stored"))
    now = [value for value in model.buffers() if value.dtype == torch.int8]
    assert all(torch.equal(a, b) for a, b in zip(codes, now, strict=True))
    for name, value in model.named_buffers():
        if name in scales:
            assert value.dtype == torch.bfloat16
            assert torch.equal(value, scales[name])


def test_the_state_dict_holds_codes_and_scales_and_nothing_of_the_handle() -> None:
    model, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    names = store_int8(model)
    store_int8(other)
    state = model.state_dict()
    for name in names:
        assert f"{name}.weight" not in state
        assert state[f"{name}.stored.codes"].dtype == torch.int8
        assert state[f"{name}.stored.scales"].dtype == torch.bfloat16
    ids = torch.arange(5, 25)[None]
    assert not torch.equal(model(input_ids=ids).logits, other(input_ids=ids).logits)
    other.load_state_dict(state)
    assert torch.equal(model(input_ids=ids).logits, other(input_ids=ids).logits)


def test_plain_weights_are_given_and_taken_back() -> None:
    model, _, _ = coded("gemma")
    ids = torch.arange(5, 25)[None]
    before = model(input_ids=ids).logits
    order = [name for name, _ in model.named_parameters()]
    handles = {id(p) for p in model.parameters()}
    with plain_weights(model):
        assert not any(name.endswith(("codes", "scales")) for name in model.state_dict())
        assert [name for name, _ in model.named_parameters()] == order
        assert torch.equal(model(input_ids=ids).logits, before)
    assert {id(p) for p in model.parameters()} == handles
    assert torch.equal(model(input_ids=ids).logits, before)
    head = model.get_output_embeddings()
    assert torch.equal(unpacked_weight(head), head.stored.read())


def test_the_row_of_padding_has_no_gradient() -> None:
    plain = nn.Embedding(8, 4, padding_idx=0)
    coded = copy.deepcopy(plain)
    stored = Int8Weight.nearest(coded.weight.detach())
    int8_modules_room._hold(coded, stored, WeightHandle(coded.weight.shape, torch.float32, stored))
    numbers = torch.tensor([[0, 3, 3], [1, 0, 7]])
    for module in (plain, coded):
        (module(numbers) * torch.arange(24.0).view(2, 3, 4)).sum().backward()
    assert plain.weight.grad is not None
    assert coded.weight.grad is not None
    assert not plain.weight.grad[0].any()
    assert torch.equal(coded.weight.grad, plain.weight.grad)


# Bytes and the plan.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "task"), [("llama", "causal_lm"), ("qwen2", "causal_lm"), ("t5", "seq2seq")])
def test_bytes_are_predicted_exactly(
    tiny_folder: Callable[..., Path], family: str, task: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(model_name_or_path=str(tiny_folder(family, task)), task=task, trained_weights="int8")  # type: ignore[arg-type]
    config = config.model_copy(update={"dtype": dtype})
    notes: list[str] = []
    model: Any = load_model(config, notes=notes)
    meta = meta_model(config)
    weights = {f"{name}.weight" for name in int8_modules(meta)}
    wanted = 0
    for name, tensor in meta.named_parameters():
        spec = TensorSpec(name, tuple(tensor.shape), dtype)
        wanted += sum(part.num_bytes for part in int8_tensors(spec)) if name in weights else spec.num_bytes
    assert weight_bytes(model) == wanted
    plain = load_model(config.model_copy(update={"trained_weights": "as_stored"}))
    assert wanted < (0.3 if dtype == "float32" else 0.56) * weight_bytes(plain)
    assert any("int8 codes" in note for note in notes)
    store_int8(meta)
    shapes = {name: (value.shape, value.dtype) for name, value in meta.named_buffers() if ".stored." in name}
    live = {name: (value.shape, value.dtype) for name, value in model.named_buffers() if ".stored." in name}
    assert shapes == live


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "bert", "t5"])
def test_the_plan_sees_what_a_real_pass_keeps(family: str, checkpointing: bool) -> None:
    (plain, task), (meta, _), (real, _) = (build(family, device=device) for device in ("meta", "meta", "cpu"))
    for model in (meta, real):
        store_int8(model)
        model.requires_grad_(True)
    of_plain = measure(plain, task=task, batch_size=ROWS, length=LENGTH, gradient_checkpointing=checkpointing)
    cost = measure(meta, task=task, batch_size=ROWS, length=LENGTH, gradient_checkpointing=checkpointing)
    kept = real_saved_recomputing(real, task) if checkpointing else real_saved(real, task)
    assert cost.saved_activation_bytes == pytest.approx(kept, rel=0.02)
    assert cost.saved_activation_bytes == of_plain.saved_activation_bytes, "no unpacked weight is kept"
    if not checkpointing:
        forward, total = real_flops(real, task)
        assert (cost.forward_flops, cost.flops) == pytest.approx((forward, total), rel=0.01)


# Training.


def fall(model: Any, rate: float, steps: int) -> tuple[float, float]:
    """Return the loss before and after some steps of AdamW on one batch."""
    optimizer = build_adamw(model, OptimizerSettings(learning_rate=rate))
    losses = []
    for _ in range(steps + 1):
        loss = real_loss(model, "causal_lm")
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses[0], losses[-1]


def test_small_rates_train_as_with_plain_weights_and_to_nearest_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain, _ = coded("llama")
    stuck = copy.deepcopy(model)
    for each in (model, plain, stuck):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(name.endswith("proj.weight") or "embed" in name or "lm_head" in name)
    assert isinstance(build_adamw(model, OptimizerSettings()), WideAdamW)
    first, wanted = fall(plain, 5e-5, 60)
    start, found = fall(model, 5e-5, 60)
    assert start == pytest.approx(first, rel=1e-6)
    assert first - wanted > 0.1
    assert first - found == pytest.approx(first - wanted, rel=0.1)

    def to_nearest(self: Int8Weight, values: torch.Tensor, *, seed: int, rows: slice) -> None:
        self.codes[rows] = (values / self.scales[rows].float().repeat_interleave(values.shape[1], dim=1)).round()

    monkeypatch.setattr(Int8Weight, "write", to_nearest)
    start, found = fall(stuck, 5e-5, 60)
    assert start - found < 0.2 * (first - wanted)


def test_every_write_has_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = coded("llama")
    seeds: list[tuple[int, int]] = []
    monkeypatch.setattr(Int8Weight, "write", lambda self, values, *, seed, rows: seeds.append((seed, rows.start)))
    fall(model, 1e-3, 2)
    num_weights = sum(hasattr(parameter, "stored") for parameter in model.parameters())
    assert len(seeds) == len(set(seeds)) == 3 * num_weights


def test_recomputation_and_accumulation_give_the_same_codes() -> None:
    results = []
    for checkpointing in (False, True):
        model, _, _ = coded("qwen2")
        model.train()
        if checkpointing:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = build_adamw(model, OptimizerSettings(learning_rate=1e-3))
        for _ in range(3):
            for _ in range(2):
                (real_loss(model, "causal_lm") / 2).backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


def test_hooks_on_the_handle_see_the_whole_gradient_once() -> None:
    model, plain, _ = coded("qwen2")
    real_loss(plain, "causal_lm").backward()
    seen: list[torch.Tensor] = []

    def take(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        seen.append(parameter.grad.clone())
        parameter.grad = None

    model.get_input_embeddings().weight.register_post_accumulate_grad_hook(take)
    real_loss(model, "causal_lm").backward()
    (gradient,) = seen
    assert torch.allclose(gradient, plain.get_input_embeddings().weight.grad, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_chunked_loss_has_the_same_gradients(family: str) -> None:
    model, _, _ = coded(family)
    ids = torch.arange(3, 43).view(2, 20)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    results = []
    for chunk in (None, 7):
        loss = summed_loss(model, batch, "causal_lm", chunk)
        loss.backward()
        results.append((loss.item(), {name: p.grad for name, p in model.named_parameters()}))
        model.zero_grad()
    (loss, whole), (other, chunked) = results
    assert other == pytest.approx(loss, rel=1e-6)
    for name, gradient in whole.items():
        assert torch.allclose(chunked[name], gradient, rtol=1e-4, atol=1e-5), name
