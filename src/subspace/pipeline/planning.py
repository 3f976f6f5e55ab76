"""From a recipe to its plan: shapes on the meta device, no weights, no peft."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from subspace.core.errors import DataError, SubspaceError
from subspace.methods.base import Method
from subspace.methods.registry import REGISTRY
from subspace.pipeline.run_config import RunConfig

if TYPE_CHECKING:
    from torch import nn

    from subspace.plan.plan import Batch, Plan
    from subspace.plan.shapes import GraphCost, Inventory, TensorSpec

__all__ = ["Known", "known_from_data", "make_plan", "memory_advice", "plan_with_data"]


def make_plan(
    config: RunConfig,
    *,
    num_labels: int | None,
    total_steps: int | None,
    method: Method | None = None,
    notes: tuple[str, ...] = (),
) -> Plan:
    """Return what the run will train and cost.

    Args:
        config: The recipe.
        num_labels: Classes of a classification model.
        total_steps: Optimizer steps of the run; None if the data that would tell are not read.
        method: The run's method object; a fresh one if None.
        notes: Put before the plan's own.

    Raises:
        ConfigError: E-CFG-016, E-CFG-017 where the recipe does not fit the model.
    """
    from subspace.models.load import meta_model
    from subspace.plan.inventory import take_inventory
    from subspace.plan.plan import compose

    method = method or config.new_method()
    model = meta_model(config.model, num_labels=num_labels)
    inventory = take_inventory(model, task=config.model.task, quantization=config.model.quantization)
    placements = method.place(inventory)
    account = method.account(inventory, placements)
    stored = _stored_bytes(config, model, inventory)
    notes = (*notes, *_trace_codes(config, model))
    method.trace(model, placements)
    trained = {tensor.name: tensor for tensor in inventory.tensors}
    specs = (*(trained[name] for name in account.trained_base), *(tensor for tensor in account.added if tensor.trained))
    batch = _batch(config, total_steps)
    return compose(
        method=config.method.name,
        model=config.model.model_name_or_path,
        inventory=inventory,
        placements=placements,
        account=account,
        optimizer_state=method.state_specs(specs, config.optimizer_settings()),
        cost=_micro_batch_cost(config, model, batch),
        batch=batch,
        kept=method.kept_specs(inventory, placements),
        held_gradients=method.held_gradients(specs, batch.accumulation),
        step_bytes=method.step_bytes(specs, config.optimizer_settings(), _writing_bytes(config, specs, stored)),
        stored_bytes=stored,
        notes=(*notes, *method.notes(inventory, placements)),
    )


def _batch(config: RunConfig, total_steps: int | None) -> Batch:
    from subspace.plan.plan import Batch

    training = config.training
    return Batch(
        batch_size=training.per_device_train_batch_size,
        length=config.data.max_length,
        accumulation=training.gradient_accumulation_steps,
        steps=total_steps,
        gradient_checkpointing=training.gradient_checkpointing,
        mixed_precision=training.mixed_precision,
        loss_chunk_tokens=training.loss_chunk_tokens,
    )


def _micro_batch_cost(config: RunConfig, model: nn.Module, batch: Batch) -> GraphCost:
    from subspace.plan.graph import measure
    from subspace.training.loss import summed_loss

    task = config.model.task
    # packed rows are laid one behind the other into a single long one
    rows = 1 if config.data.packing else batch.batch_size
    return measure(
        model,
        task=task,
        batch_size=rows,
        length=batch.batch_size * batch.length // rows,
        gradient_checkpointing=batch.gradient_checkpointing,
        mixed_precision=batch.mixed_precision,
        loss=lambda live, inputs: summed_loss(live, inputs, task, batch.loss_chunk_tokens),
    )


def _trace_codes(config: RunConfig, model: nn.Module) -> tuple[str, ...]:
    """Give a meta-device model the arithmetic of trained weights held as codes; return notes for the reader."""
    if config.model.trained_weights == "as_stored":
        return ()
    from subspace.models.int8_modules import int8_notes, store_int8

    return int8_notes(model, store_int8(model))


def _stored_bytes(config: RunConfig, model: nn.Module, inventory: Inventory) -> dict[str, int]:
    """Return the bytes of the weights that are held as codes, by name."""
    if config.model.trained_weights == "int8":
        from subspace.models.int8_modules import int8_modules, int8_tensors

        coded = {f"{name}.weight" for name in int8_modules(model)}
        return {
            tensor.name: sum(part.num_bytes for part in int8_tensors(tensor))
            for tensor in inventory.tensors
            if tensor.name in coded
        }
    if config.model.quantization == "none":
        return {}
    from subspace.models.quantized import quantized_modules, stored_bytes

    names = {f"{name}.weight" for name in quantized_modules(model)}
    return {
        tensor.name: stored_bytes(tensor, config.model.quantization, config.model.double_quantization)
        for tensor in inventory.tensors
        if tensor.name in names
    }


def _writing_bytes(config: RunConfig, trained: Iterable[TensorSpec], stored: Mapping[str, int]) -> int:
    """Return what writing a trained weight that is held as codes takes."""
    if config.model.trained_weights != "int8":
        return 0
    from subspace.models.int8_weights import rounding_bytes

    return max((rounding_bytes(tensor.num_elements) for tensor in trained if tensor.name in stored), default=0)


class Known(NamedTuple):
    """What the data tell of a run before it is planned."""

    num_labels: int | None
    total_steps: int | None
    notes: tuple[str, ...]


def plan_with_data(config: RunConfig) -> Plan:
    """Return the plan, reading the data where they tell the steps or the classes; a note says if they could not.

    Raises:
        ConfigError: E-CFG-019 if the recipe asks for a device that is not there; what `make_plan` raises.
        DataError: If the data are there and wrong.
    """
    known = known_from_data(config)
    return make_plan(config, num_labels=known.num_labels, total_steps=known.total_steps, notes=known.notes)


def known_from_data(config: RunConfig) -> Known:
    """Return steps and classes, from the data where the recipe does not tell them.

    Raises:
        ConfigError: E-CFG-019 if the recipe asks for a device that is not there.
        DataError: If the data are there and wrong.
    """
    from subspace.pipeline.build import find_device
    from subspace.training.schedule import num_total_steps

    find_device(config.training.device, "training.device")
    steps = config.training.max_steps
    notes: tuple[str, ...] = ()
    labels = len(config.data.labels) if config.data.labels else None
    if steps is None or (config.model.task == "classification" and labels is None):
        from subspace.pipeline.build import load_data

        try:
            data = load_data(config)
        except SubspaceError as error:
            if isinstance(error, DataError) and error.code != "E-DAT-017":
                raise
            reason = f"{error.code} {error.where}: {error.found}"
            notes = (f"Data not read, so steps and classes are not known from them: {reason}.",)
        else:
            steps = num_total_steps(config.training, data.num_batches)
            labels = len(data.labels) if data.labels else None
    if config.model.task == "classification" and labels is None:
        labels, notes = 2, (*notes, "Two classes are assumed.")
    return Known(labels, steps, notes)


def memory_advice(config: RunConfig) -> tuple[str, ...]:
    """Return the overrides most worth trying when memory runs out, the best first."""
    from subspace.plan.advice import suggest

    refused = {refusal.key for refusal in REGISTRY.load(config.method.name).card.refuses}
    labels = len(config.data.labels) if config.data.labels else 2
    found = suggest(make_plan(config, num_labels=labels, total_steps=None), refused)
    always = ("training.per_device_train_batch_size=1", "training.gradient_checkpointing=true")
    return (*found, *(each for each in always if not any(each.partition("=")[0] in one for one in found)))
