"""StelLA as a plain LoRA, and any plain LoRA as StelLA.

    s U S V^T = s B A   with   A = V^T (r, n),   B = U S (m, r)

Rank and alpha stay, so the exported folder loads wherever a LoRA does. The way back takes the product B A apart into
its singular values and vectors.

m rows (out_features), n columns (in_features), r rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subspace.adapters.peft_bridge import read_matching_adapter, task_type, write_adapter
from subspace.adapters.specs import ADAPTER
from subspace.adapters.stella import stella_layers, trained_heads
from subspace.runs.durable import disk_errors

__all__ = ["continue_stella", "export_stella"]


def export_stella(model: nn.Module, folder: str | Path) -> None:
    """Write the folder of a plain LoRA adapter that PEFT loads: A = V^T, B = U S, same rank and alpha.

    Args:
        model: What `add_stella` changed.
        folder: Made if absent.

    Raises:
        ResourceError: E-RES-002 if it cannot be written.
    """
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, _lora_tensors(model), _lora_config(model))


@torch.no_grad()
def continue_stella(model: nn.Module, folder: Path) -> None:
    """Give the adapter the function of a trained LoRA of the same rank and alpha, to go on training it as StelLA.

        B = Q_B R_B ;  A^T = Q_A R_A ;  R_B R_A^T = P Sigma W^T ;  U = Q_B P ;  S = Sigma ;  V = Q_A W

    Args:
        model: What `add_stella` has just changed.
        folder: A PEFT adapter folder: of StelLA, or of any plain LoRA.

    Raises:
        CheckpointError: E-CKP-005 if names or shapes differ, E-CKP-006 if it is of another kind, E-CKP-010 if absent.
        SecurityError: E-SEC-006 if the weights are a pickle.
    """
    tensors = read_matching_adapter(folder, _lora_config(model), _lora_tensors(model))
    for name, layer in stella_layers(model).items():
        right, left = (tensors[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
        outer, outer_core = torch.linalg.qr(left)
        inner, inner_core = torch.linalg.qr(right.T)
        turned, values, turned_inner = torch.linalg.svd(outer_core @ inner_core.T)
        layer.stella_U.copy_(outer @ turned)
        layer.stella_V.copy_(inner @ turned_inner.T)
        layer.stella_S.copy_(values if layer.options.diagonal else values.diag())
    for name, head in trained_heads(model).items():
        for key, value in head.modules_to_save[ADAPTER].named_parameters():
            value.copy_(tensors[f"base_model.model.{name}.{key}"])


def _lora_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what the adapter's file holds as a LoRA, under the names it has there."""
    tensors: dict[str, Tensor] = {}
    for name, layer in stella_layers(model).items():
        for side, factor in zip("AB", layer.lora_factors(), strict=True):
            tensors[f"base_model.model.{name}.lora_{side}.weight"] = factor
    for name, head in trained_heads(model).items():
        for key, value in head.modules_to_save[ADAPTER].named_parameters():
            tensors[f"base_model.model.{name}.{key}"] = value
    return tensors


def _lora_config(model: nn.Module) -> dict[str, Any]:
    from peft import LoraConfig

    layers = stella_layers(model)
    ranks = {name: layer.rank for name, layer in layers.items()}
    usual, first = max(ranks.values()), next(iter(layers.values()))
    config = LoraConfig(
        r=usual,
        rank_pattern={name: rank for name, rank in ranks.items() if rank != usual},
        lora_alpha=first.options.alpha,
        lora_dropout=first.options.dropout,
        use_rslora=first.options.rslora,
        bias="none",
        target_modules=list(layers),
        modules_to_save=list(trained_heads(model)) or None,
        task_type=task_type(model) if hasattr(model, "config") else None,
        fan_in_fan_out=not all(isinstance(layer.base_layer, nn.Linear) for layer in layers.values()),
        base_model_name_or_path=getattr(model, "name_or_path", None),
        inference_mode=True,
    )
    described: dict[str, Any] = config.to_dict()
    return described
