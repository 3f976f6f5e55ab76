"""The built-in model as it is shipped: small, self-contained, able to do its part and yet not good at the task."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from subspace.data.tasks import load_task
from subspace.data.tasks.word_problems import ANSWER_PATTERN

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/subspace/models/assets/tiny-llama"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(FOLDER).eval()


def last_number(text: str) -> str:
    found = re.findall(ANSWER_PATTERN, text)
    return found[-1] if found else ""


def answers(model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    batch.pop("token_type_ids", None)
    found = model.generate(**batch, max_new_tokens=20, do_sample=False)
    return tokenizer.batch_decode(found[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_folder_is_complete_and_at_most_four_megabytes() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names == wanted | {"README.md"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4 * 1024 * 1024


def test_weights_are_from_the_text_and_the_steps_of_the_present_script(tokenizer: Any, model: Any) -> None:
    """Whoever changes the corpus or the script's defaults must train the shipped model anew."""
    spec = importlib.util.spec_from_file_location("pretrain", ROOT / "scripts" / "pretrain_tiny_llama.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    options = script.read_options([])
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert script.text_digest(options.seed) in card
    assert f"seed {options.seed}: {options.steps:,} steps of {options.rows * options.length:,}\n" in card
    assert f"AdamW at {options.learning_rate:g}," in card
    assert script.build_model(script.VOCABULARY).config.to_diff_dict().items() <= model.config.to_dict().items()
    assert script.build_tokenizer(options.seed).get_vocab() == tokenizer.get_vocab()


def test_every_digit_is_one_token_and_every_text_comes_back(tokenizer: Any) -> None:
    assert tokenizer("2026", add_special_tokens=False)["input_ids"] == [
        tokenizer.convert_tokens_to_ids(digit) for digit in "2026"
    ]
    for text in ("Tom has 12 apples.\n", "Grüße, 世界 🙂", " 12 + 7 = 19, 19 - 5 = 14", "\ttabs  and spaces "):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer("Tom")["input_ids"][0] == tokenizer.bos_token_id
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_prompt_and_completion_split_into_the_same_tokens_together_and_apart(tokenizer: Any) -> None:
    for row in load_task("word-problems", "validation", size=50):
        apart = [tokenizer(row[key], add_special_tokens=False)["input_ids"] for key in ("prompt", "completion")]
        together = tokenizer(row["prompt"] + row["completion"], add_special_tokens=False)["input_ids"]
        assert apart[0] + apart[1] == together


def test_model_can_add_numbers_that_it_never_met(model: Any, tokenizer: Any) -> None:
    rows = load_task("word-problems", "test", size=120)
    sums = {each for row in rows for each in re.findall(r"(\d+ [+-] \d+ =) (\d+)", row["completion"].split(",")[0])}
    prompts, wanted = zip(*sorted(sums), strict=True)
    right = sum(
        last_number(answer.split("\n")[0]) == value
        for answer, value in zip(answers(model, tokenizer, list(prompts)), wanted, strict=True)
    )
    assert right >= 0.8 * len(wanted)


def test_model_answers_some_held_out_problems_but_not_most(model: Any, tokenizer: Any) -> None:
    rows = load_task("word-problems", "test")
    found = answers(model, tokenizer, [row["prompt"] for row in rows])
    right = sum(last_number(answer) == last_number(row["completion"]) for answer, row in zip(found, rows, strict=True))
    assert 0.10 * len(rows) <= right <= 0.40 * len(rows)
