"""The loss in chunks is the loss: value and every gradient, whatever lies between hidden states and logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from subspace.core.errors import ConfigError
from subspace.models.int8_modules import store_int8
from subspace.models.tiny import tiny_model
from subspace.training.loss import IGNORED, count_targets, summed_loss

DECODERS = ("llama", "qwen2", "qwen3", "gemma", "mistral")
CASES = [*((family, "causal_lm") for family in DECODERS), ("t5", "seq2seq")]
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def batch_of(task: str = "causal_lm", rows: int = 3, length: int = 12, vocabulary: int = 96) -> dict[str, Tensor]:
    """Return rows of which one is padded and one keeps few targets."""
    ids = torch.randint(3, vocabulary, (rows, length), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[0, -3:] = 0
    labels[0, -3:] = IGNORED
    labels[1, :8] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels[:, :-2] if task == "seq2seq" else labels}


def step(model: nn.Module, batch: dict[str, Tensor], task: str, chunk: int | None, **options: Any) -> dict[str, Tensor]:
    """Return the mean loss and all gradients of one pass with dropout, seeded."""
    model.zero_grad()
    model.train()
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.get("autocast", False)):
        loss = summed_loss(model, batch, task, chunk) / count_targets(batch, task)
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {"loss": loss.detach(), **found}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= tolerance, name
        assert found[name].dtype == value.dtype


def of_family(model_type: str, **fields: Any) -> nn.Module:
    import transformers

    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **fields)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("chunk", [1, 5, 500])
@pytest.mark.parametrize(("family", "task"), CASES, ids=[family for family, _ in CASES])
def test_loss_and_gradients_are_those_of_whole_logits(family: str, task: str, chunk: int) -> None:
    model, batch = tiny_model(family, task), batch_of(task)  # type: ignore[arg-type]
    expected = step(model, batch, task, None)
    assert len(expected) == len(list(model.parameters())) + 1
    assert_same(step(model, batch, task, chunk), expected)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("granite", {"logits_scaling": 7.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("gemma2", {"final_logit_softcapping": 0.5, "head_dim": 8}),
        ("gpt2", {}),
        ("phi", {}),  # its head has a bias
        ("mixtral", {"num_local_experts": 2}),
    ],
)
def test_what_a_family_does_to_its_logits_is_done(model_type: str, fields: dict[str, Any]) -> None:
    model, batch = of_family(model_type, **fields), batch_of()
    for name, value in model.named_parameters():
        if name.endswith("lm_head.bias"):
            nn.init.normal_(value)
    expected = step(model, batch, "causal_lm", None)
    assert_same(step(model, batch, "causal_lm", 4), expected)


def test_bart_adds_its_bias() -> None:
    import transformers

    torch.manual_seed(1)
    own = {"layers": 1, "ffn_dim": 32, "attention_heads": 2}
    sizes = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in own.items()}
    config = transformers.BartConfig(vocab_size=96, d_model=16, max_position_embeddings=32, **sizes)
    model, batch = transformers.BartForConditionalGeneration(config), batch_of("seq2seq")
    model.final_logits_bias.normal_()
    assert_same(step(model, batch, "seq2seq", 4), step(model, batch, "seq2seq", None))


def only(model: Any, part: str) -> nn.Module:
    for name, value in model.named_parameters():
        value.requires_grad_(part in name)
    return model


@pytest.mark.parametrize("part", ["layers", "lm_head", "embed_tokens"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_frozen_parts_stay_without_gradient(family: str, part: str) -> None:
    if (family, part) == ("qwen2", "lm_head"):
        pytest.skip("its head is the embedding")
    model, batch = only(tiny_model(family), part), batch_of()  # type: ignore[arg-type]
    expected = step(model, batch, "causal_lm", None)
    assert 1 < len(expected) < len(list(model.parameters())) + 1
    assert_same(step(model, batch, "causal_lm", 5), expected)


@pytest.mark.parametrize("saved", [False, True], ids=["lora", "copied"])
def test_adapted_head(saved: bool) -> None:
    from peft import LoraConfig, get_peft_model

    chosen = {"modules_to_save": ["lm_head"]} if saved else {}
    targets = ["q_proj"] if saved else ["q_proj", "lm_head"]
    settings = LoraConfig(r=2, target_modules=targets, lora_dropout=0.2, init_lora_weights=False, **chosen)
    model, batch = get_peft_model(tiny_model("llama"), settings), batch_of()
    expected = step(model, batch, "causal_lm", None)
    assert any("lm_head" in name for name in expected)
    # dropout on the head's adapter is drawn for other rows than those of the whole
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert_same(step(model, batch, "causal_lm", 5), step(model, batch, "causal_lm", None))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_autocast_rounds_no_more_than_the_whole_does(family: str, trained: bool) -> None:
    model, batch = tiny_model(family), batch_of()  # type: ignore[arg-type]
    if not trained:
        only(model, "layers")
    whole, exact = step(model, batch, "causal_lm", None, autocast=True), step(model, batch, "causal_lm", None)
    chunked = step(model, batch, "causal_lm", 5, autocast=True)
    assert chunked.keys() == whole.keys()
    assert all(value.dtype == torch.float32 for value in chunked.values())

    def rounding(found: dict[str, Tensor], part: str) -> float:
        return sum(float((found[name] - value).square().sum()) for name, value in exact.items() if part in name) ** 0.5

    assert 0 < rounding(chunked, "") <= 1.1 * rounding(whole, "")
    assert rounding(chunked, "lm_head") <= 1.1 * rounding(whole, "lm_head")


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_head_held_as_codes(family: str) -> None:
    model, batch = tiny_model(family), batch_of()  # type: ignore[arg-type]
    store_int8(model)
    expected = step(model, batch, "causal_lm", None)
    assert any("embed_tokens" in name for name in expected)
    assert_same(step(model, batch, "causal_lm", 5), expected)


def test_half_precision_weights() -> None:
    model, batch = tiny_model("qwen2").bfloat16(), batch_of()
    whole, chunked = step(model, batch, "causal_lm", None), step(model, batch, "causal_lm", 5)
    assert_same(chunked, whole, tolerance=0.02 * float(whole["model.embed_tokens.weight"].abs().max()))


def test_gradients_add_up_over_micro_batches() -> None:
    model, first, second = tiny_model("qwen2"), batch_of(), batch_of(rows=2, length=9)

    def both(chunk: int | None) -> dict[str, Tensor]:
        model.zero_grad()
        for batch in (first, second):
            (summed_loss(model, batch, "causal_lm", chunk) / 40).backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    assert_same(both(5), both(None))


def test_a_batch_without_targets_has_no_loss_and_no_gradient() -> None:
    model, batch = tiny_model("llama"), batch_of()
    batch["labels"].fill_(IGNORED)
    loss = summed_loss(model, batch, "causal_lm", 5)
    loss.backward()
    assert loss.item() == 0.0
    assert all(value.grad is None or not value.grad.any() for value in model.parameters())


def test_without_gradients_the_value_is_the_same() -> None:
    model, batch = tiny_model("gemma").eval(), batch_of()
    with torch.no_grad():
        whole, chunked = summed_loss(model, batch, "causal_lm"), summed_loss(model, batch, "causal_lm", 5)
    assert float(chunked) == pytest.approx(float(whole), rel=1e-6)
    assert not chunked.requires_grad


def test_the_model_is_left_as_it_was() -> None:
    model, batch = tiny_model("llama"), batch_of()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    step(model, batch, "causal_lm", 5)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())


def test_no_tensor_has_the_size_of_the_logits() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    model, batch = tiny_model("llama", vocab_size=4096), batch_of(length=40)
    largest = 0

    class Look(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            made = [leaf for leaf in tree_iter(result) if isinstance(leaf, Tensor) and leaf.shape[-1:] == (4096,)]
            largest = max([largest, *(leaf.numel() // 4096 for leaf in made)])
            return result

    with Look():
        summed_loss(model, batch, "causal_lm", 8).backward()
    assert largest == 64  # the transposed weight, (64, 4096); whole logits have 120 rows


def test_a_second_backward_pass_is_refused() -> None:
    model = tiny_model("llama")
    loss = summed_loss(model, batch_of(), "causal_lm", 5)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Odd(nn.Module):
    """Makes logits of something else than what its decoder hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: Any = tiny_model("llama")
        self.config = self.inner.config

    def get_decoder(self) -> nn.Module:
        decoder: nn.Module = self.inner.model.layers[0].mlp
        return decoder

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.inner.lm_head
        return head

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


class Late(Odd):
    def get_decoder(self) -> nn.Module:
        return self.inner.model

    def forward(self, **inputs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        hidden = self.inner.model(**inputs).last_hidden_state
        logits = self.inner.lm_head(torch.cat((hidden, hidden.new_zeros(hidden.shape[0], 2, hidden.shape[2])), dim=1))
        return CausalLMOutput(logits=logits)


@pytest.mark.parametrize("model", [Odd(), Late(), nn.Linear(2, 2)], ids=["unnamed", "late", "none"])
def test_a_model_that_cannot_be_cut_is_refused(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"E-CFG-014 training.loss_chunk_tokens: \w+ has (no|a|logits)"):
        summed_loss(model, batch_of(), "causal_lm", 5)
