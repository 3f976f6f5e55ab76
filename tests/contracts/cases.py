"""The smallest config of every method: one line each, and every contract is checked on it."""

from __future__ import annotations

from typing import Any

from subspace.methods.registry import REGISTRY

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1},
    "dora": {"rank": 2, "alpha": 4.0, "dropout": 0.1, "target_modules": "all-linear"},
    "pissa": {"rank": 2, "alpha": 4.0, "target_modules": "all-linear"},
    "olora": {"rank": 2, "alpha": 4.0},
    "eva": {"rank": 2, "alpha": 4.0, "num_batches": 4},
    "adalora": {"rank": 2, "initial_rank": 4, "alpha": 4.0, "warmup_steps": 1, "allocation_interval": 1},
    "stella": {"rank": 2, "alpha": 4.0, "dropout": 0.1, "init": "zero"},
    "galore": {"rank": 4, "refresh_interval": 2},
    "fira": {"rank": 4, "refresh_interval": 2},
    "flora": {"rank": 4, "refresh_interval": 2},
    "apollo": {"rank": 4, "refresh_interval": 2},
    "apollo_mini": {"refresh_interval": 2},
    "qgalore": {"rank": 4, "refresh_interval": 2},
    "sophia": {"hessian_interval": 2},
    "ia3": {},
    "prefix": {"num_virtual_tokens": 3},
    "prompt": {"num_virtual_tokens": 3},
    "custom_optimizer": {"optimizer": "torch.optim.NAdam"},
    "custom_peft": {"config": "peft.LoHaConfig", "arguments": {"r": 2, "alpha": 4}},
}

GRAPHS = [name for name in CASES if name in {"full", "galore"} or REGISTRY.load(name).card.family != "projection"]
"""Methods whose passes differ: those that train through a projection of gradients compute what `full` computes."""
