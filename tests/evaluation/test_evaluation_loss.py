"""The loss of an evaluation: right, weighted by tokens, blind to padding, and leaving no trace in the training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from subspace.core.errors import DataError
from subspace.evaluation.inference import looking_at
from subspace.evaluation.loss import evaluate_loss, row_losses

# PEFT asks transformers for an attribute under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MakeModel = Callable[..., Any]


def some_rows(count: int = 7) -> list[tuple[list[int], list[int]]]:
    """Ids and labels; the first 1 to 3 positions do not count."""
    stream = random.Random(3)
    rows = []
    for _ in range(count):
        ids = [stream.randrange(3, 60) for _ in range(stream.randrange(5, 14))]
        cut = stream.randrange(1, 4)
        rows.append((ids, [-100] * cut + ids[cut:]))
    return rows


def batches(rows: list[tuple[list[int], list[int]]], size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        longest = max(len(ids) for ids, _ in part)
        pad = [(ids + [0] * (longest - len(ids)), labels + [-100] * (longest - len(ids))) for ids, labels in part]
        yield {
            "input_ids": torch.tensor([ids for ids, _ in pad]),
            "labels": torch.tensor([labels for _, labels in pad]),
            "attention_mask": torch.tensor([[int(place < len(ids)) for place in range(longest)] for ids, _ in part]),
        }


@torch.no_grad()
def by_hand(model: Any, rows: list[tuple[list[int], list[int]]]) -> tuple[float, int]:
    """Token by token, row by row, with the labels spelled out."""
    losses = []
    for ids, labels in rows:
        targets = [label for label in labels if label != -100]
        inputs: dict[str, Tensor] = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
        if model.config.is_encoder_decoder:
            shifted = [model.config.decoder_start_token_id, *(max(label, 0) for label in labels[:-1])]
            logits = model(**inputs, decoder_input_ids=torch.tensor([shifted])).logits[0]
            places = [place for place, label in enumerate(labels) if label != -100]
        else:
            logits = model(**inputs).logits[0][-len(ids) :]
            places = [place - 1 for place, label in enumerate(labels) if label != -100]
        losses += [-float(functional.log_softmax(logits[p], -1)[t]) for p, t in zip(places, targets, strict=True)]
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize("chunk", [None, 4], ids=["whole", "chunks"])
@pytest.mark.parametrize("kind", ["plain", "lora", "prompt", "prefix"])
@pytest.mark.parametrize(("family", "task"), [("llama", "causal_lm"), ("t5", "seq2seq")])
def test_equals_the_loss_by_hand_in_any_batches(
    family: str, task: str, kind: str, chunk: int | None, make_model: MakeModel, wrap: Callable[..., Any]
) -> None:
    model, rows = wrap(make_model(family), kind), some_rows()
    expected, count = by_hand(model, rows)
    for size in (1, 3, 7):
        result = evaluate_loss(model, batches(rows, size), task=task, chunk_tokens=chunk)
        assert result.loss == pytest.approx(expected, rel=1e-5)
        assert result.num_tokens == count


def test_weighs_by_tokens_not_by_batches(make_model: MakeModel) -> None:
    model, rows = make_model("llama"), some_rows(3)
    parts = [evaluate_loss(model, batches([row], 1), task="causal_lm") for row in rows]
    assert len({part.num_tokens for part in parts}) > 1
    weighted = sum(part.loss * part.num_tokens for part in parts) / sum(part.num_tokens for part in parts)
    assert evaluate_loss(model, batches(rows, 2), task="causal_lm").loss == pytest.approx(weighted, rel=1e-6)


def test_classes_are_weighed_by_rows(make_model: MakeModel) -> None:
    model, rows = make_model("bert", num_labels=3), some_rows(5)
    parts = [{**batch, "labels": torch.tensor([1] * len(batch["labels"]))} for batch in batches(rows, 2)]
    with torch.no_grad():
        logits = [model(**{key: value for key, value in part.items() if key != "labels"}).logits for part in parts]
    expected = functional.cross_entropy(torch.cat(logits), torch.ones(5).long())
    assert evaluate_loss(model, parts, task="classification") == pytest.approx((float(expected), 5), rel=1e-5)


def test_half_precision_logits_are_summed_in_float32(make_model: MakeModel) -> None:
    model, (ids, labels) = make_model("llama").to(torch.bfloat16), some_rows(1)[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    assert logits.dtype == torch.bfloat16
    expected = functional.cross_entropy(logits.float(), torch.tensor(labels[1:]))
    assert evaluate_loss(model, batches([(ids, labels)], 1), task="causal_lm").loss == pytest.approx(
        float(expected), rel=1e-6
    )


def test_no_target_is_an_error(make_model: MakeModel) -> None:
    with pytest.raises(DataError, match="E-DAT-008"):
        evaluate_loss(make_model("llama"), batches([([5, 6], [-100, -100])], 1), task="causal_lm")


def random_state() -> tuple[Any, ...]:
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]


def test_leaves_modes_gradients_and_random_numbers_alone(make_model: MakeModel) -> None:
    model, rows = make_model("llama", attention_dropout=0.5), some_rows()
    model.train()
    model.model.layers[0].eval()  # a part that was frozen in evaluation mode stays so
    modes = [module.training for module in model.modules()]
    next(model.parameters()).grad = torch.full_like(next(model.parameters()), 2.0)

    def noisy() -> Iterator[dict[str, Tensor]]:
        for batch in batches(rows, 2):
            torch.rand(1), random.random(), numpy.random.rand()  # even if reading rows draws numbers
            yield batch

    before = random_state()
    first = evaluate_loss(model, noisy(), task="causal_lm")
    assert random_state() == before
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) == 1
    assert bool((gradients[0] == 2.0).all())
    assert evaluate_loss(model, batches(rows, 2), task="causal_lm") == first  # no dropout inside


def test_training_goes_on_bit_for_bit_around_an_evaluation(make_model: MakeModel) -> None:
    def train(evaluating: bool) -> list[float]:
        model, rows = make_model("llama", attention_dropout=0.3), some_rows()
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        torch.manual_seed(5)
        losses = []
        for batch in batches(rows, 2):
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if evaluating:
                evaluate_loss(model, batches(rows, 3), task="causal_lm")
        return losses

    assert train(evaluating=True) == train(evaluating=False)


def test_modes_and_random_numbers_are_put_back_after_a_failure(make_model: MakeModel) -> None:
    model = make_model("llama").train()
    before = random_state()
    with pytest.raises(KeyError), looking_at(model):
        raise KeyError(float(torch.rand(1)))
    assert model.training
    assert random_state() == before


@pytest.mark.parametrize(("family", "task"), [("llama", "causal_lm"), ("t5", "seq2seq")])
def test_chunks_leave_every_row_its_own_loss(family: str, task: str, make_model: MakeModel) -> None:
    model, batch = make_model(family), next(batches(some_rows(4), 4))
    with looking_at(model):
        whole = row_losses(model, batch, task=task)
        chunked = row_losses(model, batch, task=task, chunk_tokens=3)
    torch.testing.assert_close(chunked[0], whole[0], rtol=1e-5, atol=0)
    assert chunked[1].tolist() == whole[1].tolist()
