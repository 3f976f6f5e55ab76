"""Results as other tools write them, by hand and small, of several generations."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

SUITE: dict[str, Any] = {
    "run_info": {
        "created_at": "2026-07-15T05:41:18+00:00",
        "total_time": 1153.25,
        "experiment_name": "lora/llama-rank32",
        "peft_branch": "main",
        "peft_worktree_is_dirty": False,
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "batch_size_eval": 50,
            "max_steps": 500,
            "eval_steps": 250,
            "compile": False,
            "use_gc": False,
            "query_template": "Question: {query} Think step by step.\nAnswer:",
            "seed": 3,
            "grad_norm_clip": 1.0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
            "lr_scheduler": "cosine",
            "use_amp": False,
            "autocast_adapter_dtype": True,
            "generation_kwargs": {"max_new_tokens": 300},
            "attn_implementation": None,
            "init_kv_cache_prefix": None,
        },
        "peft_config": {
            "task_type": "CAUSAL_LM",
            "peft_type": "LORA",
            "auto_mapping": None,
            "peft_version": "0.19.2",
            "base_model_name_or_path": "meta-llama/Llama-3.2-3B",
            "inference_mode": False,
            "r": 32,
            "target_modules": ["q_proj", "v_proj"],
            "lora_alpha": 64,
            "lora_dropout": 0.0,
            "use_dora": False,
            "init_lora_weights": True,
            "loftq_config": {},
        },
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_reserved_avg": 14397338969,
        "accelerator_memory_max": 22292725760,
        "accelerator_memory_reserved_99th": 20120076288,
        "train_time": 941.9589,
        "file_size": 36715216,
        "num_trainable_params": 9175040,
        "num_total_params": 3221924864,
        "status": "success",
        "metrics": [
            {
                "step": 250,
                "valid accuracy": 0.32,
                "train loss": 0.98,
                "train samples": 1000,
                "train time": 29.0,
                "eval time": 12.1,
                "tokens / sec": 7299.5,
                "mem allocated avg": 6927565711.36,
                "mem reserved avg": 14525755555.84,
                "elapsed time": 66.5,
            },
            {
                "step": 500,
                "valid accuracy": 0.36,
                "train loss": 0.71,
                "train samples": 2000,
                "train time": 28.9,
                "eval time": 12.0,
                "tokens / sec": 7199.4,
                "mem allocated avg": 6920368839.2,
                "mem reserved avg": 14163392856.0,
                "elapsed time": 110.75,
            },
            {
                "step": 500,
                "test accuracy": 0.478,
                "train loss": 0.71,
                "train samples": 2000,
                "train total tokens": 417800,
                "forgetting": 0.05,
            },
        ],
    },
    "meta_info": {
        "model_info": {"sha": "13afe51", "created_at": "2024-09-18T15:23:48+00:00"},
        "dataset_info": {
            "metamath": {"sha": "aa4f34d", "created_at": "2023-09-21T17:22:46+00:00"},
            "gsm8k": {"sha": "e53f048", "created_at": "2022-04-12T10:22:10+00:00"},
        },
        "package_info": {
            "transformers-version": "5.13.1",
            "transformers-commit-hash": None,
            "peft-version": "0.19.2",
            "peft-commit-hash": "5f4b1d3",
            "datasets-version": "4.2.0",
            "datasets-commit-hash": None,
            "bitsandbytes-version": "0.49.2",
            "bitsandbytes-commit-hash": None,
            "torch-version": "2.13.0",
            "torch-commit-hash": None,
        },
        "system_info": {
            "system": "Linux",
            "release": "6.17",
            "version": "#9",
            "machine": "x86_64",
            "processor": "x86_64",
            "accelerator": "NVIDIA L40S",
        },
        "pytorch_info": "PyTorch built with: GCC",
    },
}
"""A result of 2026."""


def suite_result(generation: int = 2026) -> dict[str, Any]:
    """Return a result of the PEFT suite; that of 2025 has CUDA's names, no numbers of parameters, no forgetting."""
    tree = copy.deepcopy(SUITE)
    if generation == 2025:
        trained = tree["train_info"]
        for what in ("reserved_avg", "max", "reserved_99th"):
            trained[f"cuda_memory_{what}"] = trained.pop(f"accelerator_memory_{what}")
        for key in ("num_trainable_params", "num_total_params"):
            del trained[key]
        del trained["metrics"][-1]["forgetting"], tree["run_info"]["error_msg"]
        system = tree["meta_info"]["system_info"]
        system["gpu"] = system.pop("accelerator")
    return tree


def image_result() -> dict[str, Any]:
    """Return a result of the suite's image task."""
    tree = suite_result()
    tree["run_info"]["train_config"] |= {"dataset_id": "cats", "lr_scheduler": None, "use_gc": True}
    del tree["run_info"]["train_config"]["max_seq_length"]
    tree["meta_info"]["dataset_info"] = {"sha": "1", "created_at": "2026-01-01"}
    tree["train_info"]["metrics"] = [
        {"step": 100, "valid dino_similarity": 0.72, "train loss": 0.77, "train samples": 200, "elapsed time": 155.2},
        {"step": 150, "test dino_similarity": 0.74, "train loss": 0.75, "train samples": 300, "drift": 0.11},
    ]
    return tree


def inference_result() -> dict[str, Any]:
    """Return a result of the suite's benchmark of text generation: nothing is trained in it."""
    return {
        "run_info": {
            "timestamp": "2026",
            "duration": 3.5,
            "status": "success",
            "peft_config": {"peft_type": "LORA", "r": 8},
        },
        "generation_info": {
            "memory": {"peak_accelerator_memory_mb": 100.0, "memory_logs": []},
            "by_category": {},
            "overall": {"inference_time": 1.5, "time_per_token": 0.01},
        },
        "meta_info": {"model_id": "facebook/opt-350m", "parameters": {"trainable_params": 786432}},
    }


STATE: dict[str, Any] = {
    "best_global_step": None,
    "best_metric": None,
    "epoch": 2.0,
    "eval_steps": 20,
    "global_step": 40,
    "is_world_process_zero": True,
    "log_history": [
        {"epoch": 0.5, "grad_norm": 11.0, "learning_rate": 1e-4, "loss": 2.5, "step": 10},
        {"epoch": 1.0, "grad_norm": 9.5, "learning_rate": 9e-5, "loss": 2.0, "step": 20},
        {
            "epoch": 1.0,
            "eval_accuracy": 0.25,
            "eval_loss": 2.25,
            "eval_runtime": 9.1,
            "eval_samples_per_second": 22.6,
            "eval_steps_per_second": 1.4,
            "step": 20,
        },
        {"epoch": 1.5, "grad_norm": 7.0, "learning_rate": 5e-5, "loss": 1.5, "step": 30},
        {"epoch": 2.0, "grad_norm": 6.0, "learning_rate": 0.0, "loss": 1.25, "step": 40},
        {"epoch": 2.0, "eval_accuracy": 0.5, "eval_loss": 1.75, "eval_runtime": 9.0, "step": 40},
        {"epoch": 2.0, "step": 40, "total_flos": 2.5e12, "train_loss": 1.8, "train_runtime": 120.5},
    ],
    "max_steps": 40,
    "num_input_tokens_seen": 0,
    "num_train_epochs": 2,
    "save_steps": 20,
    "total_flos": 2.5e12,
    "train_batch_size": 4,
}
"""trainer_state.json of a finished run."""

FACTORY_LOG: list[dict[str, Any]] = [
    {"current_steps": 10, "total_steps": 40, "loss": 2.5, "lr": 1e-4, "epoch": 0.5, "percentage": 25.0,
     "elapsed_time": "0:00:32", "remaining_time": "0:01:36", "throughput": 512.5, "total_tokens": 16400,
     "vram_allocated": 2.5, "vram_reserved": 3.0},
    {"current_steps": 20, "total_steps": 40, "loss": 2.0, "lr": 9e-5, "epoch": 1.0, "percentage": 50.0,
     "elapsed_time": "0:01:03", "remaining_time": "0:01:03", "throughput": 512.5, "total_tokens": 32800,
     "vram_allocated": 2.75, "vram_reserved": 3.0},
    {"current_steps": 20, "total_steps": 40, "eval_loss": 2.25, "epoch": 1.0, "percentage": 50.0,
     "elapsed_time": "0:01:10", "remaining_time": "0:01:10"},
    {"current_steps": 40, "total_steps": 40, "loss": 1.25, "lr": 0.0, "epoch": 2.0, "percentage": 100.0,
     "elapsed_time": "1 day, 0:02:10", "remaining_time": "0:00:00"},
    {"current_steps": 40, "total_steps": 40, "epoch": 2.0, "percentage": 100.0, "elapsed_time": "1 day, 0:02:10",
     "remaining_time": "0:00:00"},
]  # fmt: skip
"""trainer_log.jsonl of LLaMA-Factory."""

OLD_FACTORY_LOG: list[dict[str, Any]] = [
    {"current_steps": 10, "total_steps": 40, "loss": 2.5, "eval_loss": None, "predict_loss": None, "reward": None,
     "learning_rate": 1e-4, "epoch": 0.5, "percentage": 25.0, "elapsed_time": "0:00:32", "remaining_time": "0:01:36",
     "throughput": "0.00", "total_tokens": 0},
    {"current_steps": 20, "total_steps": 40, "loss": None, "eval_loss": 2.25, "predict_loss": None, "reward": None,
     "learning_rate": None, "epoch": 1.0, "percentage": 50.0, "elapsed_time": "0:01:10",
     "remaining_time": "0:01:10"},
]  # fmt: skip
"""The same in 2024: `learning_rate`, nulls written out, text where a number is meant."""

ADAPTER: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "Qwen/Qwen2.5-7B"}

HARNESS: dict[str, Any] = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.5,
            "exact_match_stderr,strict-match": 0.1,
            "exact_match,flexible-extract": 1.0,
            "exact_match_stderr,flexible-extract": 0.0,
        },
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.0},
    },
    "configs": {},
    "versions": {"gsm8k": 3.0, "arc_easy": 1.0},
    "n-shot": {"gsm8k": 5, "arc_easy": 0},
    "config": {
        "model": "hf",
        "model_args": "pretrained=Qwen/Qwen2.5-7B,peft=saves/lora,dtype=bfloat16",
        "model_num_parameters": 7000,
        "device": "cuda:0",
        "random_seed": 0,
    },
    "git_hash": "abc",
    "date": 1.0,
    "transformers_version": "5.0",
    "lm_eval_version": "0.4.13",
    "model_name": "saves/lora",
    "total_evaluation_time_seconds": "12.5",
}


def samples() -> list[dict[str, Any]]:
    """Return samples of gsm8k: two documents through two filters each."""
    return [
        {
            "doc_id": document,
            "doc": {"question": f"question {document}"},
            "target": f"so {document}\n#### {document}",
            "arguments": {"gen_args_0": {"arg_0": f"Question: {document}", "arg_1": {"until": ["Q"]}}},
            "resps": [[f"it is {document}"]],
            "filtered_resps": [answer],
            "filter": chosen,
            "metrics": ["exact_match"],
            "exact_match": right,
        }
        for document, strict, answer_strict in ((1, 0.0, "[invalid]"), (0, 1.0, "0"))
        for chosen, right, answer in (("strict-match", strict, answer_strict), ("flexible-extract", 1.0, str(document)))
    ]


def write(path: Path, value: Any) -> Path:
    """Write a JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
