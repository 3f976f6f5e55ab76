"""What a run must remember to go on as if it had never stopped.

Randomness needs no state: every optimizer step seeds Python, NumPy and torch from (seed, step), so the step number is
the state. The data cursor is (epoch, batch). The rest is in `Progress`, the trained tensors, the optimizer, the
scheduler and what the method keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from subspace.core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Progress", "load_trained", "split_tensors", "trained_tensors"]


@dataclass
class Progress:
    """Where a run is; integers and floats only.

    Attributes:
        step: Optimizer steps done.
        epoch: Passes begun and not ended.
        batch: Micro-batches of this epoch already used.
        num_tokens: Input tokens seen, padding left out.
        num_targets: Targets seen.
        window_loss, window_steps: Sum of losses and number of steps since the last log record.
        best_loss, best_step: Lowest validation loss and where it was.
        num_worse: Evaluations since then.
        num_bad: Steps in a row skipped as not finite; `num_skipped` is their total.
        log_offset: Bytes of the log that belong to this state.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    num_tokens: int = 0
    num_targets: int = 0
    window_loss: float = 0.0
    window_steps: int = 0
    best_loss: float | None = None
    best_step: int = 0
    num_worse: int = 0
    num_bad: int = 0
    num_skipped: int = 0
    log_offset: int = 0
    stopped_early: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: E-CKP-007 if the fields are not the ones of this version.
        """
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            raise CheckpointError(
                "E-CKP-007",
                where="state.json progress",
                found=f"fields {sorted(set(values) ^ known)} differ",
                expected="a checkpoint of this version",
                action="Resume with the version that wrote it; the manifest names it.",
            )
        return cls(**values)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter that requires a gradient, by name; of one that is held as codes, its codes and scales."""
    tensors: dict[str, Tensor] = {}
    for name, value in model.named_parameters():
        stored = getattr(value, "stored", None)
        if value.requires_grad and stored is not None:
            tensors |= {f"{name}.{part}": buffer for part, buffer in stored.named_buffers()}
        elif value.requires_grad:
            tensors[name] = value.detach()
    return tensors


def load_trained(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy saved values into the tensors that `trained_tensors` names; all or none.

    Raises:
        CheckpointError: E-CKP-005 if names or shapes differ.
    """
    import torch

    own = trained_tensors(model)
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    reshaped = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unexpected or reshaped:
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:5])})"
            for kind, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", sorted(reshaped)),
            )
            if names
        ]
        raise CheckpointError(
            "E-CKP-005",
            where=where,
            found="; ".join(parts),
            expected="exactly the tensors that this recipe trains",
            action="Resume with the recipe that wrote the checkpoint.",
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def split_tensors(values: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a flat mapping into its tensors and its JSON values."""
    import torch

    tensors = {key: value for key, value in values.items() if isinstance(value, torch.Tensor)}
    return tensors, {key: value for key, value in values.items() if key not in tensors}
