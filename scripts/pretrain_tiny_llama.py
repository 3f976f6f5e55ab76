"""Make the built-in model: build a tokenizer, pretrain a tiny Llama on generated text, write the model folder.

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_llama.py

The text, its order and the initial values follow from the seed. Measured: 546 s of one core's time for 2,500 steps of
2,304 tokens, on an Intel Xeon with AVX-512 and torch 2.13. See docs/built-in-model.md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from subspace.core.seeding import seed_everything
from subspace.data.tasks.corpus import documents

ASSETS = Path(__file__).resolve().parents[1] / "src/subspace/models/assets/tiny-llama"
SPECIAL = ["<pad>", "<s>", "</s>"]
PAD, BOS, EOS = range(3)
VOCABULARY = 640
CONTEXT = 512


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer learned from 20,000 pages; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(documents(seed), 20_000), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def text_digest(seed: int) -> str:
    """Return the sha256 of the first 2,000 pages that the model reads: shipped weights name the text they are from."""
    pages = itertools.islice(documents(seed + 1), 2_000)
    return hashlib.sha256("\0".join(pages).encode()).hexdigest()


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Return an untrained Llama of 0.9M parameters, input and output embedding tied."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config)


def token_blocks(tokenizer: PreTrainedTokenizerFast, seed: int, length: int, rows: int) -> Iterator[torch.Tensor]:
    """Yield (rows, length) blocks of pages laid end to end, each page between its marks."""
    stream: list[int] = []
    for page in documents(seed + 1):
        stream += [*tokenizer.backend_tokenizer.encode(page).ids, EOS]
        if len(stream) >= rows * length:
            yield torch.tensor(stream[: rows * length]).view(rows, length)
            stream = []


def rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: a short rise, then a cosine down to zero."""
    warmup = max(1, steps // 50)
    return peak * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))


def pretrain(
    model: LlamaForCausalLM, blocks: Iterator[torch.Tensor], steps: int, peak: float, log: Path | None
) -> float:
    """Train in place with AdamW and return the mean loss of the last 50 steps."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98), fused=True
    )
    losses: list[float] = []
    start = time.monotonic()
    model.train()
    for step, block in enumerate(itertools.islice(blocks, steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        logits = model(input_ids=block, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), block[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            recent = sum(losses[-100:]) / 100
            print(f"step {step + 1}/{steps} loss {recent:.4f} {time.monotonic() - start:.0f} s", flush=True)
            if log is not None and step % 500 == 499:
                model.save_pretrained(log)
    return sum(losses[-50:]) / len(losses[-50:])


def card(facts: dict[str, Any]) -> str:
    """Return the model card."""
    return f"""---
license: apache-2.0
language: en
library_name: transformers
---
# tiny-llama

The built-in model of subspace: a Llama of {facts["parameters"]:,} parameters, pretrained on text that
`subspace.data.tasks.corpus` generates. It can add and subtract small numbers and tell very small stories, and it is
meant for demonstrations and tests of fine-tuning, nothing else.

Made by `scripts/pretrain_tiny_llama.py` with seed {facts["seed"]}: {facts["steps"]:,} steps of {facts["tokens"]:,}
tokens, AdamW at {facts["peak"]:g}, final loss {facts["loss"]:.3f}. No text of other people is in it.

sha256 of the first 2,000 pages: `{facts["text"]}`
"""


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of `arguments`, or of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--keep", type=Path, default=None, help="folder for an unfinished model every 500 steps")
    return parser.parse_args(arguments)


def main() -> None:
    """Build, pretrain, write."""
    options = read_options()
    torch.set_num_threads(1)
    seed_everything(options.seed)
    tokenizer = build_tokenizer(options.seed)
    model = build_model(VOCABULARY)
    print(f"{len(tokenizer)} tokens, {model.num_parameters()} parameters", flush=True)
    blocks = token_blocks(tokenizer, options.seed, options.length, options.rows)
    loss = pretrain(model, blocks, options.steps, options.learning_rate, options.keep)
    model.eval().save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    (options.out / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    facts = {
        "parameters": model.num_parameters(),
        "seed": options.seed,
        "steps": options.steps,
        "tokens": options.rows * options.length,
        "peak": options.learning_rate,
        "loss": loss,
        "text": text_digest(options.seed),
    }
    (options.out / "README.md").write_text(card(facts), encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
