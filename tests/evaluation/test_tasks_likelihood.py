"""Log-likelihoods of continuations against one plain forward pass for each, and what tasks make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from subspace.core.errors import ConfigError, NumericsError
from subspace.evaluation.likelihood import encode_pair, encode_text, log_likelihoods, rolling_log_likelihoods
from subspace.evaluation.task_scores import Subject, require_able, score_task
from subspace.evaluation.tasks import Layout, Source, Task, find_task
from subspace.evaluation.tasks.documents import Documents

MakeModel = Callable[..., Any]
PAIRS = [
    ("the cat", " sat"),
    ("the cat", " s"),
    ("the cat", " t"),  # shares its only forward pass with the one above
    ("the cat ", "sat"),  # the blank moves over
    ("", "dog"),
    ("a = 1.", " b"),
    ("the cat", " sat"),
]


def plain_likelihood(model: Any, before: list[int], wanted: list[int], limit: int) -> tuple[float, bool]:
    tokens = (before + wanted)[-limit - 1 :]
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([tokens[:-1]])).logits[0].double().log_softmax(dim=-1)
    picked = logs[-len(wanted) :]
    values = picked[torch.arange(len(wanted)), torch.tensor(wanted)]
    return float(values.sum()), picked.argmax(dim=-1).tolist() == wanted


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "plain"), ("gpt2", "plain"), ("gemma", "plain"), ("llama", "lora")]
)
def test_a_batch_says_what_single_passes_say(
    family: str, kind: str, make_model: MakeModel, wrap: Any, tokenizer: Any
) -> None:
    model = wrap(make_model(family), kind)
    found = log_likelihoods(model, tokenizer, PAIRS, batch_size=3)
    for pair, each in zip(PAIRS, found, strict=True):
        before, wanted = encode_pair(tokenizer, *pair)
        total, greedy = plain_likelihood(model, before, wanted, 10_000)
        assert each.log_likelihood == pytest.approx(total, abs=2e-5)
        assert (each.num_tokens, each.is_greedy) == (len(wanted), greedy)
    assert found[0] == found[-1]


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_come_first(kind: str, make_model: MakeModel, wrap: Any, tokenizer: Any) -> None:
    model = wrap(make_model("llama"), kind)
    for pair, each in zip(PAIRS, log_likelihoods(model, tokenizer, PAIRS, batch_size=4), strict=True):
        before, wanted = encode_pair(tokenizer, *pair)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before + wanted])).logits[0].double()
        logs = logits[-len(before + wanted) :].log_softmax(dim=-1)[len(before) - 1 : -1]
        assert each.log_likelihood == pytest.approx(
            float(logs[torch.arange(len(wanted)), torch.tensor(wanted)].sum()), abs=2e-5
        )


def test_an_encoder_reads_the_context(make_model: MakeModel, tokenizer: Any) -> None:
    model = make_model("t5")
    for pair, each in zip(PAIRS, log_likelihoods(model, tokenizer, PAIRS, batch_size=3), strict=True):
        before, wanted = encode_pair(tokenizer, *pair, seq2seq=True)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before]), labels=torch.tensor([wanted])).logits[0].double()
        logs = logits.log_softmax(dim=-1)[torch.arange(len(wanted)), torch.tensor(wanted)]
        assert each.log_likelihood == pytest.approx(float(logs.sum()), abs=2e-5)


def test_what_is_too_long_is_cut_from_the_left(make_model: MakeModel, tokenizer: Any) -> None:
    model = make_model("llama", max_position_embeddings=12)
    pairs = [("x" * 40 + "the cat sat on", " a mat"), ("the cat sat on", " a mat"), ("a", "b" * 13), ("a", "")]
    found = log_likelihoods(model, tokenizer, pairs, batch_size=4)
    before, wanted = encode_pair(tokenizer, *pairs[0])
    assert found[0].log_likelihood == pytest.approx(plain_likelihood(model, before, wanted, 12)[0], abs=2e-5)
    assert found[0].log_likelihood == found[1].log_likelihood
    assert [each.error is not None for each in found] == [False, False, True, True]
    assert found[2].log_likelihood == -math.inf


def test_blanks_and_begin_tokens(tokenizer: Any) -> None:
    assert encode_pair(tokenizer, "ab ", "c") == encode_pair(tokenizer, "ab", " c")
    assert encode_pair(tokenizer, "", "c") == ([1], tokenizer.encode("c", add_special_tokens=False))
    assert encode_pair(tokenizer, "  ", "c")[0] == [1]
    assert encode_text(tokenizer, "abc") == tokenizer.encode("abc")


def test_a_loss_that_is_no_number_is_told(make_model: MakeModel, tokenizer: Any) -> None:
    model = make_model("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(NumericsError, match="E-NUM-001"):
        log_likelihoods(model, tokenizer, PAIRS, batch_size=2)


@pytest.mark.parametrize("length", [1, 11, 12, 13, 24, 30])
def test_texts_of_any_length_count_every_token_once(length: int, make_model: MakeModel, tokenizer: Any) -> None:
    model = make_model("llama", max_position_embeddings=12)
    text = ("the cat sat on a mat. 1 + 2 = 3." * 3)[:length]
    tokens = encode_text(tokenizer, text)
    total, start = 0.0, 0
    while start < len(tokens):
        end = min(start + 12, len(tokens))
        before = [1] if start == 0 else tokens[max(0, end - 13) : start]
        total += plain_likelihood(model, before, tokens[start:end], 12)[0]
        start = end
    (found,) = rolling_log_likelihoods(model, tokenizer, [text], batch_size=2)
    assert (found.num_tokens, found.log_likelihood) == (len(tokens), pytest.approx(total, abs=1e-4))


def documents(*docs: dict[str, Any]) -> Documents:
    names = tuple(f"x/{index}" for index in range(len(docs)))
    return Documents(docs, names, ((),) * len(docs), 0, "here", "digest")


def choosing(metrics: tuple[str, ...], **more: Any) -> Task:
    return Task(
        name="x", version=1, kind="multiple_choice", source=Source("", None, "test"), layouts=(Layout((), dict),),
        metrics=metrics, question=lambda doc: str(doc["q"]), choices=lambda doc: doc["c"],
        gold=lambda doc: int(doc["g"]), **more,
    )  # fmt: skip


def test_normalised_by_characters_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    from subspace.evaluation.likelihood import Likelihood

    sums = [-4.0, -5.0, -5.5]
    told = [Likelihood(value, 1, False) for value in sums]
    monkeypatch.setattr("subspace.evaluation.task_scores.log_likelihoods", lambda *_: told)
    # characters: 2, 4, 3; bytes: 2, 4, 9
    doc = {"q": "?", "c": ["ab", "abcd", "\u8001\u5e2b\u597d"], "g": 1}
    scores = score_task(Subject(None, None, "causal_lm"), choosing(("acc", "acc_norm", "acc_bytes")), documents(doc))
    assert scores.metrics == {"acc": 0.0, "acc_norm": 1.0, "acc_bytes": 0.0}
    item = scores.items[0]
    assert (item["output"], item["reference"], item["correct"], item["id"]) == ("ab", "abcd", False, "x/0")
    scores = score_task(Subject(None, None, "causal_lm"), choosing(("acc_norm", "acc")), documents(doc))
    assert (scores.items[0]["output"], scores.items[0]["correct"]) == ("abcd", True)


def test_an_impossible_choice_is_an_error_and_wrong(make_model: MakeModel, tokenizer: Any) -> None:
    subject = Subject(make_model("llama"), tokenizer, "causal_lm")
    good, bad = {"q": "cat", "c": ["a", "b"], "g": 0}, {"q": "cat", "c": ["", "b"], "g": 1}
    scores = score_task(subject, choosing(("acc",), delimiter=""), documents(good, bad))
    assert "error" in scores.items[1]
    assert scores.items[1]["correct"] is False
    assert "error" not in scores.items[0]


def test_a_classification_head_answers_by_names(make_model: MakeModel, tokenizer: Any) -> None:
    model = make_model("bert", num_labels=2)
    task = find_task("glue/mrpc")
    docs = documents(*({"sentence1": "a" * n, "sentence2": "b", "label": n % 2} for n in range(1, 6)))
    straight = score_task(Subject(model, tokenizer, "classification", ("not_equivalent", "equivalent")), task, docs)
    turned = score_task(Subject(model, tokenizer, "classification", ("Equivalent", "not equivalent")), task, docs)
    numbered = score_task(Subject(model, tokenizer, "classification", ("LABEL_0", "LABEL_1")), task, docs)
    assert straight.metrics == numbered.metrics
    assert straight.metrics["acc"] == pytest.approx(1 - turned.metrics["acc"])
    assert {item["output"] for item in straight.items} <= {"equivalent", "not_equivalent"}


@pytest.mark.parametrize(
    ("task", "kind", "labels", "hint"),
    [
        ("gsm8k", "classification", ("a", "b"), "a language model"),
        ("glue/mrpc", "classification", ("positive", "negative"), "the classes not_equivalent, equivalent"),
        ("perplexity", "seq2seq", (), "a causal model"),
        ("humaneval", "causal_lm", (), "--allow-code-execution"),
    ],
)
def test_models_that_cannot_be_asked(task: str, kind: str, labels: tuple[str, ...], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as caught:
        require_able(Subject(None, None, kind, labels), find_task(task))
    assert caught.value.code == "E-EVL-001"


def test_an_answer_ends_at_the_first_of_its_end_texts(make_model: MakeModel, tokenizer: Any) -> None:
    from subspace.evaluation.answer import find_answers

    model = make_model("llama")
    prompts = [tokenizer.encode(text) for text in ("cat", "a = 1", "the dog.")]
    whole = find_answers(model, tokenizer, prompts, 24, 3)
    for row, answer in enumerate(whole):
        for end in (answer.text[3:5], answer.text[7]):
            cut = find_answers(model, tokenizer, prompts, 24, 3, until=[end, "never"])[row]
            assert cut.text == answer.text[: answer.text.index(end)]
            assert cut.finished
            assert len(cut.tokens) < len(answer.tokens)


def test_generated_answers_are_read_and_graded(make_model: MakeModel, tokenizer: Any) -> None:
    subject = Subject(make_model("llama", max_position_embeddings=40), tokenizer, "causal_lm")
    task = find_task("gsm8k")
    docs = documents({"question": "cat" * 30, "answer": "#### 1"}, {"question": "a", "answer": "#### 2"})
    scores = score_task(subject, task, docs)
    first, second = scores.items
    assert first["prompt_tokens_cut"] > 0
    assert "prompt_tokens_cut" not in second
    assert {first["correct"], second["correct"]} <= {True, False}
    assert set(scores.metrics) == {"exact_match", "exact_match_flexible"}
