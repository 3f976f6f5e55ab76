"""The plan of a run: what is trained, on which modules, and what it costs. Imports no torch.

    peak = weights + buffers + optimizer state + kept by the method
           + the most that gradients, activations, logits and passing results take at one moment

Exact are parameters and the bytes of weights, gradients, optimizer state and what the method keeps. FLOPs and
activations are those of the model's own graph when every row has its full length. The rest of the process (Python,
libraries, an allocator's slack, a GPU's context) is in no figure.

With accumulation the gradients of earlier micro-batches lie beside the whole next pass; without, they come into being
while activations go. `working_bytes` is the larger of what then lives during the passes and at the optimizer's step,
which passes through `step_bytes` beside the gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subspace.core.errors import CheckpointError
from subspace.plan.modules import PlannedModule, planned_modules
from subspace.plan.shapes import Account, GraphCost, Inventory, Placement, TensorSpec

__all__ = ["SCHEMA", "Batch", "Plan", "PlannedModule", "compose"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What a run computes on.

    Attributes:
        batch_size: Rows of a micro-batch.
        length: Tokens of a row at the most.
        accumulation: Micro-batches of an optimizer step.
        steps: Optimizer steps of the run; None if the data that would tell were not read.
        gradient_checkpointing: Whether blocks are recomputed.
        mixed_precision: `no`, `bf16` or `fp16`.
        loss_chunk_tokens: Positions whose logits exist at one moment; None: all of them.
    """

    batch_size: int
    length: int
    accumulation: int = 1
    steps: int | None = None
    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    loss_chunk_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will train and cost; frozen, and the same after a round trip through JSON.

    Attributes:
        trained_tensors: Every tensor with a gradient, under its name in the model that is trained.
        quantizable_parameters: Frozen linear weights inside the blocks that could be quantized and are not;
            `quantizable_bytes` is what they take.
        weight_bytes: Base and added parameters as they are stored.
        gradient_bytes: What is held of gradients: one for every trained tensor in its type, unless the method uses them
            up in the backward pass.
        kept_bytes: What the method holds outside model and optimizer.
        activation_bytes: Tensors kept for the backward pass of a micro-batch.
        logits_bytes: Tensors of the logits' shape alive at once; partly kept, so partly in `activation_bytes`.
        transient_bytes: The most that activations, logits and passing results take at one moment.
        working_bytes: The most that gradients, activations, logits and passing results take at one moment.
        step_bytes: What the optimizer's step passes through beside gradients and state, at the most.
        forward_flops: Per optimizer step, as all FLOPs here; `run_flops` is None if the steps are not known.
    """

    method: str
    model: str
    model_type: str
    task: str
    quantization: str
    batch: Batch
    num_layers: int
    hidden_size: int
    modules: tuple[PlannedModule, ...]
    trained_tensors: tuple[TensorSpec, ...]
    trained_parameters: int
    frozen_parameters: int
    weight_bytes: int
    quantizable_parameters: int
    quantizable_bytes: int
    buffer_bytes: int
    gradient_bytes: int
    optimizer_state_bytes: int
    kept_bytes: int
    activation_bytes: int
    logits_bytes: int
    transient_bytes: int
    working_bytes: int
    forward_flops: int
    backward_flops: int
    recompute_flops: int
    notes: tuple[str, ...] = ()
    placements: tuple[Placement, ...] = ()
    step_bytes: int = 0

    @property
    def num_parameters(self) -> int:
        return self.trained_parameters + self.frozen_parameters

    @property
    def trained_share(self) -> float:
        """Trained over all parameters, between 0 and 1."""
        return self.trained_parameters / self.num_parameters

    @property
    def held_bytes(self) -> int:
        """What lives during the whole run."""
        return self.weight_bytes + self.buffer_bytes + self.optimizer_state_bytes + self.kept_bytes

    @property
    def peak_bytes(self) -> int:
        return self.held_bytes + self.working_bytes

    @property
    def step_flops(self) -> int:
        return self.forward_flops + self.backward_flops + self.recompute_flops

    @property
    def run_flops(self) -> int | None:
        return None if self.batch.steps is None else self.step_flops * self.batch.steps

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, with the figures that are derived from it."""
        derived = {name: getattr(self, name) for name in _DERIVED}
        return {"schema": SCHEMA, **dataclasses.asdict(self), **derived}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` wrote.

        Raises:
            CheckpointError: E-CKP-007 if another schema version wrote it.
        """
        if values.get("schema") != SCHEMA:
            raise CheckpointError(
                "E-CKP-007",
                where="plan.json",
                found=f"schema {values.get('schema')!r}",
                expected=str(SCHEMA),
                action="Plan again with this version.",
            )
        fields = {"step_bytes": 0} | {
            field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values
        }
        modules = tuple(PlannedModule(**item | {"shape": tuple(item["shape"])}) for item in fields["modules"])
        tensors = tuple(TensorSpec(**item | {"shape": tuple(item["shape"])}) for item in fields["trained_tensors"])
        return cls(
            **fields
            | {
                "batch": Batch(**fields["batch"]),
                "modules": modules,
                "trained_tensors": tensors,
                "notes": tuple(fields["notes"]),
                "placements": tuple(Placement(**item) for item in fields["placements"]),
            }
        )


_OF_THE_MODEL = ("model_type", "task", "quantization", "num_layers", "hidden_size")
_DERIVED = ("num_parameters", "trained_share", "held_bytes", "peak_bytes", "step_flops", "run_flops")


def compose(
    *,
    method: str,
    model: str,
    inventory: Inventory,
    placements: tuple[Placement, ...],
    account: Account,
    optimizer_state: tuple[TensorSpec, ...],
    cost: GraphCost,
    batch: Batch,
    kept: tuple[TensorSpec, ...] = (),
    held_gradients: tuple[TensorSpec, ...] | None = None,
    step_bytes: int = 0,
    stored_bytes: Mapping[str, int] | None = None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Return the plan that these facts make.

    Args:
        method: The method's name.
        model: The model as the recipe names it.
        inventory: The base model.
        placements: Which module gets which rank.
        account: What the method trains and adds.
        optimizer_state: The optimizer's state tensors after its first step.
        cost: One micro-batch, measured on the traced model.
        batch: What the run computes on.
        kept: What the method holds outside model and optimizer.
        held_gradients: What is held of gradients during a step; None: one for every trained tensor, in its type.
        step_bytes: What the optimizer's step passes through beside gradients and state.
        stored_bytes: Bytes of base tensors that are not stored as the inventory says (quantized ones), by name.
        notes: Sentences for the reader, put before the plan's own.
    """
    trained = _trained(inventory, account)
    return Plan(
        method=method,
        model=model,
        batch=batch,
        placements=placements,
        modules=planned_modules(inventory, placements, trained),
        trained_tensors=trained,
        notes=(*notes, *_notes(inventory, batch)),
        **{name: getattr(inventory, name) for name in _OF_THE_MODEL},
        **_state(optimizer_state, kept),
        **_parameters(inventory, account, trained),
        **_weights(inventory, account, stored_bytes or {}),
        **_passes(cost, batch, trained if held_gradients is None else held_gradients, step_bytes),
    )


def _state(optimizer_state: tuple[TensorSpec, ...], kept: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return {"optimizer_state_bytes": _bytes(optimizer_state), "kept_bytes": _bytes(kept)}


def _trained(inventory: Inventory, account: Account) -> tuple[TensorSpec, ...]:
    base = {tensor.name: tensor for tensor in inventory.tensors}
    trained_base = (dataclasses.replace(base[name], trained=True) for name in account.trained_base)
    return (*trained_base, *(tensor for tensor in account.added if tensor.trained))


def _parameters(inventory: Inventory, account: Account, trained: tuple[TensorSpec, ...]) -> dict[str, Any]:
    num_parameters = inventory.num_parameters + sum(tensor.num_elements for tensor in account.added)
    trained_parameters = sum(tensor.num_elements for tensor in trained)
    return {"trained_parameters": trained_parameters, "frozen_parameters": num_parameters - trained_parameters}


def _weights(inventory: Inventory, account: Account, stored: Mapping[str, int]) -> dict[str, Any]:
    base_bytes = sum(stored.get(tensor.name, tensor.num_bytes) for tensor in inventory.tensors)
    quantizable = _quantizable(inventory, {*account.trained_base, *stored})
    return {
        "weight_bytes": base_bytes + _bytes(account.added),
        "buffer_bytes": _bytes(inventory.buffers),
        "quantizable_parameters": sum(tensor.num_elements for tensor in quantizable),
        "quantizable_bytes": _bytes(quantizable),
    }


def _passes(cost: GraphCost, batch: Batch, held: tuple[TensorSpec, ...], step_bytes: int) -> dict[str, Any]:
    return {
        "gradient_bytes": _bytes(held),
        "activation_bytes": cost.saved_activation_bytes,
        "logits_bytes": cost.logits_bytes,
        "transient_bytes": cost.transient_bytes,
        "working_bytes": _working_bytes(cost, _bytes(held), step_bytes, batch.accumulation),
        "step_bytes": step_bytes,
        "forward_flops": cost.forward_flops * batch.accumulation,
        "backward_flops": cost.backward_flops * batch.accumulation,
        "recompute_flops": cost.recompute_flops * batch.accumulation,
    }


def _bytes(tensors: tuple[TensorSpec, ...]) -> int:
    return sum(tensor.num_bytes for tensor in tensors)


def _working_bytes(cost: GraphCost, held_bytes: int, step_bytes: int, accumulation: int) -> int:
    """Return the most that lives at one moment; gradients that are freed at once are among the passing results.

    In a single pass gradients come into being while activations go, and no more of them is held than all.
    """
    beside_a_pass = held_bytes + cost.transient_bytes
    in_the_passes = beside_a_pass if accumulation > 1 else min(cost.backward_peak_bytes, beside_a_pass)
    return max(in_the_passes, held_bytes + step_bytes)


def _quantizable(inventory: Inventory, excluded: set[str]) -> tuple[TensorSpec, ...]:
    if inventory.quantization != "none":
        return ()
    weights = {
        f"{m.name}.weight" for m in inventory.modules if m.kind == "linear" and m.block is not None and not m.tied
    }
    return tuple(tensor for tensor in inventory.tensors if tensor.name in weights - excluded)


def _notes(inventory: Inventory, batch: Batch) -> tuple[str, ...]:
    notes = ["Activations and FLOPs are those of rows of full length; shorter rows cost less."]
    if batch.steps is None:
        notes.append("The number of steps is known once the data are read.")
    if inventory.quantization != "none":
        notes.append(
            "Activations are those of unquantized arithmetic; unpacking a weight needs its space for a moment."
        )
    return tuple(notes)
