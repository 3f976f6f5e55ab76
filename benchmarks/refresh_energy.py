"""How much of real gradients' energy the bases of each kind capture, as a share of what the SVD's basis captures.

Full fine-tuning with AdamW; every `--interval` steps the gradient of every matrix that GaLore would project gets a new
basis of each kind. "warm" starts from its own last basis, as in training. The figure is |P^T G|^2 / |P_svd^T G|^2.

    OMP_NUM_THREADS=1 python benchmarks/refresh_energy.py MODEL_FOLDER TEXT_FILE --rank 16 --interval 25
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from subspace.linalg.decompose import leading_basis
from subspace.projection.geometry import geometry_of

KINDS = ("svd", "gram", "randomized", "warm")


def gradients(model: nn.Module, batches: Iterator[dict[str, Tensor]], steps: int) -> Iterator[dict[str, Tensor]]:
    """Train and yield the gradients of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    for _ in range(steps):
        model(**next(batches)).loss.backward()
        yield {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        optimizer.step()
        optimizer.zero_grad()


def text_batches(tokenizer: object, text: Path, size: int, length: int, masked: bool) -> Iterator[dict[str, Tensor]]:
    """Yield consecutive pieces of a text: to be continued, or with 15 % of their tokens to be guessed."""
    import gzip

    raw = gzip.decompress(text.read_bytes()).decode() if text.suffix == ".gz" else text.read_text()
    ids = torch.tensor(tokenizer(raw[:400_000], add_special_tokens=False).input_ids)  # type: ignore[operator]
    draw = torch.Generator().manual_seed(0)
    for start in range(0, len(ids) - size * length, size * length):
        rows = ids[start : start + size * length].view(size, length)
        if not masked:
            yield {"input_ids": rows, "labels": rows}
            continue
        hidden = torch.rand(rows.shape, generator=draw) < 0.15
        labels = torch.where(hidden, rows, -100)
        yield {"input_ids": rows.masked_fill(hidden, tokenizer.mask_token_id), "labels": labels}  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--interval", type=int, default=25)
    parser.add_argument("--refreshes", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)
    masked = AutoConfig.from_pretrained(given.model).model_type == "bert"
    kind = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = kind.from_pretrained(given.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    batches = text_batches(tokenizer, given.text, given.batch, given.length, masked)
    last: dict[str, Tensor] = {}
    shares: dict[str, list[float]] = {name: [] for name in KINDS}
    whole: list[float] = []
    for step, found in enumerate(gradients(model, batches, given.interval * given.refreshes + 1)):
        if step % given.interval:
            continue
        for name, gradient in found.items():
            geometry = geometry_of(tuple(gradient.shape), given.rank, "shorter") if gradient.dim() == 2 else None
            if geometry is None or not geometry.saves() or not gradient.any():
                continue
            side = "left" if gradient.shape[0] <= gradient.shape[1] else "right"
            lead = gradient if side == "left" else gradient.mT
            energy = {}
            for how in KINDS:
                basis = leading_basis(gradient, given.rank, how=how, side=side, seed=step, previous=last.get(name))
                energy[how] = float((basis.mT @ lead).double().square().sum())
                if how == "warm":
                    last[name] = basis
            if step:  # the first warm basis has nothing to start from
                whole.append(energy["svd"] / float(lead.double().square().sum()))
                for how in KINDS:
                    shares[how].append(energy[how] / energy["svd"])
    row = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "model": given.model.name,
        "rank": given.rank,
        "interval": given.interval,
        "matrices_times_refreshes": len(whole),
        "svd_captures_mean": round(statistics.fmean(whole), 4),
        "share_of_svd_mean": {how: round(statistics.fmean(values), 5) for how, values in shares.items()},
        "share_of_svd_min": {how: round(min(values), 5) for how, values in shares.items()},
    }
    print(json.dumps(row))
    if given.out:
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
