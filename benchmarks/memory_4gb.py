"""Peak memory of the 4 GB recipes against their plans, on random weights of the true shape.

A folder with random weights of Qwen2-0.5B's shape is written, and the recipe trains on it for three steps: the first,
which finds every basis, an ordinary one, and a later refresh. On a GPU the peak is `max_memory_allocated`; on the CPU
the resident set above what the process held before the model was loaded, sampled by the run's own monitor, which also
counts what libraries keep beside tensors.

    OMP_NUM_THREADS=2 python benchmarks/memory_4gb.py --recipe recipes/qwen2-0.5b_instruct_galore-4gb.yaml
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file

from subspace.models.preset import preset_fields
from subspace.models.tiny_tokenizers import train_tokenizer
from subspace.pipeline.build import find_device
from subspace.pipeline.execute import train
from subspace.pipeline.planning import make_plan
from subspace.pipeline.resolve import resolve
from subspace.training.hooks import Listener


def write_model(hub_id: str, folder: Path, device: str) -> Path:
    """Write config, random bfloat16 weights (drawn on that device) and a small tokenizer of a model of that shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**(preset_fields(hub_id) or {}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    folder.mkdir(parents=True)
    tensors = {
        name: (torch.randn(value.shape, device=device) * 0.02).to(torch.bfloat16).cpu()
        if value.ndim > 1
        else torch.ones_like(value, device="cpu")
        for name, value in model.named_parameters()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    train_tokenizer("qwen2", 384).save_pretrained(folder)
    return folder


class Clock(Listener):
    """The seconds of every step; says what goes on, which of a large model takes minutes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = self._begun = time.perf_counter()

    def on_phase(self, name: str) -> None:
        print(f"{time.perf_counter() - self._begun:7.1f} s: {name}", flush=True)

    def on_start(self, total_steps: int, step: int) -> None:
        self._last = time.perf_counter()

    def on_step(self, step: int, loss: float) -> None:
        now = time.perf_counter()
        self.seconds.append(round(now - self._last, 1))
        self._last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--accumulation", type=int, default=2, help="Micro-batches of a step; more change no peak.")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--override", nargs="*", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        first, _ = resolve(args.recipe)
        clock, device = Clock(), find_device(args.device, "--device")
        clock.on_phase("writing a model")
        model = write_model(first.model.model_name_or_path, folder / "model", device)
        rows = folder / "rows.jsonl"
        text = "The cat sat on the mat and looked at the rain. " * 200
        rows.write_text("".join(json.dumps({"text": f"{n} {text}"}) + "\n" for n in range(16)), encoding="utf-8")
        refresh = ["method.refresh_interval=2"] if first.method.name != "full" else []
        overrides = [
            *(f"model.local_path={json.dumps(str(model))}", f"data.source={json.dumps(str(rows))}"),
            *(
                "data.format=text",
                "data.loss_on=all",
                "data.validation_fraction=0.0",
                f"data.max_length={args.length}",
            ),
            *("training.max_steps=3", "training.num_train_epochs=null", "training.eval_steps=null"),
            *("training.save_steps=null", "training.logging_steps=1", "training.warmup_ratio=0.0"),
            f"training.gradient_accumulation_steps={args.accumulation}",
            f"training.device={args.device}",
            f"training.output_dir={json.dumps(str(folder / 'run'))}",
            *refresh,
            *args.override,
        ]
        config, _ = resolve(args.recipe, overrides)
        clock.on_phase("planning")
        plan = make_plan(config, num_labels=None, total_steps=3)
        result = train(config, listeners=(clock,))
        records = [json.loads(line) for line in (folder / "run" / "unified_log.jsonl").read_text().splitlines()]
    steps = [record["machine"] for record in records if record["event"] == "step"]
    measured = result.summary["measured_peak_bytes"]
    report = {
        "recipe": args.recipe.name,
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu",
        "packages": {name: version(name) for name in ("torch", "transformers")},
        "length": args.length,
        "planned_bytes": {
            name: getattr(plan, f"{name}_bytes")
            for name in ("weight", "gradient", "optimizer_state", "kept", "activation", "logits", "working", "peak")
        },
        "measured_peak_bytes": measured,
        "measured_over_planned": round(measured / plan.peak_bytes, 3),
        "seconds_of_steps": clock.seconds,
        "machine_at_steps": steps,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
