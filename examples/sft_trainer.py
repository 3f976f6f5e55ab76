"""GaLore and StelLA inside TRL's SFTTrainer, resumed halfway. Takes half a minute on one CPU core; needs trl."""

from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from subspace.adapters.stella import add_stella
from subspace.adapters.stella_lora import export_stella
from subspace.integrations.stella_callback import StellaCallback
from subspace.integrations.transformers_optimizers import optimizer_cls_and_kwargs
from subspace.models.tiny import BUILTIN

BASE = str(BUILTIN["builtin/tiny-llama"])


def new_trainer(folder: Path, method: str, max_steps: int) -> SFTTrainer:
    """Return a trainer; every call gives an equal one."""
    rows = [{"prompt": f"{number} plus one is", "completion": f" {number + 1}"} for number in range(200)]
    args = SFTConfig(
        str(folder / method),
        max_steps=max_steps,
        save_steps=max(max_steps // 2, 1),
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        bf16=False,
        report_to="none",
    )
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    if method == "stella":
        ours = {"callbacks": [StellaCallback()]}
        add_stella(model, "all-linear", rank=8)
    else:
        ours = {"optimizer_cls_and_kwargs": optimizer_cls_and_kwargs(args, method, rank=16)}
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    return SFTTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **ours)


def main(folder: str = "outputs/sft-trainer", max_steps: int = 60) -> dict[str, float]:
    losses = {}
    for method in ("galore", "stella"):
        trainer = new_trainer(Path(folder), method, max_steps)
        losses[method] = trainer.train().training_loss

        halfway = Path(folder, method, f"checkpoint-{max(max_steps // 2, 1)}")
        again = new_trainer(Path(folder), method, max_steps)
        again.train(resume_from_checkpoint=str(halfway))
        pairs = zip(trainer.model.parameters(), again.model.parameters(), strict=True)
        print(f"{method}: loss {losses[method]:.3f}; resumed to equal weights: {all(a.equal(b) for a, b in pairs)}")

    adapter = Path(folder, "stella-lora")
    adapter.mkdir(exist_ok=True)
    export_stella(again.model, adapter)
    print("StelLA, for plain PEFT:", sorted(path.name for path in adapter.iterdir()))
    return losses


if __name__ == "__main__":
    main()
