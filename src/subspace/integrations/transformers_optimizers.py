"""Our optimizers inside a transformers Trainer, and so inside TRL's SFTTrainer.

    trainer = Trainer(
        model, args, train_dataset=rows, optimizer_cls_and_kwargs=optimizer_cls_and_kwargs(args, "galore", rank=128)
    )

Learning rate, betas, eps and weight decay are those of the TrainingArguments; the Trainer's schedule, accumulation,
clipping and checkpoints work as with its own optimizers. Only matrices decay. Needs no import of transformers.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

import subspace.optim
from subspace.core.errors import ConfigError, MethodError
from subspace.core.registry import nearest
from subspace.integrations.trainer_groups import parameter_groups
from subspace.optim.engine import SubspaceOptimizer
from subspace.optim.settings import ProjectionSettings, projection_settings

__all__ = ["METHODS", "OptimizerFactory", "create_optimizer", "optimizer_cls_and_kwargs"]

_WHERE = "TrainingArguments"
_PLACING = ("target_modules", "exclude_modules", "project_embeddings")
_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_SETTINGS = tuple(field.name for field in dataclasses.fields(ProjectionSettings))


@dataclass(frozen=True, slots=True)
class _Method:
    """An optimizer under its method's name.

    Attributes:
        optimizer: Its name in `subspace.optim`.
        reads: The numbers of Adam that it takes from the TrainingArguments; others must stand at their defaults there.
        rank: Rank if none is given; None if one must be; 0 if nothing is projected then.
        options: What differs from the defaults of the class.
    """

    optimizer: str
    reads: tuple[str, ...] = _ADAM
    rank: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def kind(self) -> type[SubspaceOptimizer]:
        """Return the class of the optimizer."""
        found: type[SubspaceOptimizer] = getattr(subspace.optim, self.optimizer)
        return found


METHODS: Mapping[str, _Method] = {
    "adamw": _Method("SubspaceAdamW", rank=0),
    "apollo": _Method("Apollo"),
    "apollo_mini": _Method("ApolloMini", rank=1),
    "fira": _Method("FiraAdamW"),
    "flora": _Method("Flora", ("adam_beta1",), options={"scale_parameter": False}),
    "galore": _Method("GaLoreAdamW"),
    "galore_adafactor": _Method("GaLoreAdafactor", ("adam_beta1",), options={"scale_parameter": False}),
    "qgalore": _Method("QGaLoreAdamW"),
    "sophia": _Method("SophiaG", ("adam_beta1", "adam_beta2"), rank=0),
}
"""What `method` may name. The Adafactors take the learning rate as it is, and no factor from the size of the weight."""


def create_optimizer(
    model: nn.Module,
    args: Any,
    method: str = "galore",
    *,
    rank: int | None = None,
    target_modules: Iterable[str] | Literal["all-linear"] = "all-linear",
    exclude_modules: Iterable[str] = (),
    project_embeddings: bool = False,
    max_consumed_norm: float = 0.0,
    **options: Any,
) -> SubspaceOptimizer:
    """Return an optimizer over what a model trains, for `Trainer(optimizers=(optimizer, None))`.

    Args:
        model: As the Trainer will train it: adapters are attached, parameters are frozen.
        args: The TrainingArguments or SFTConfig that the Trainer gets too.
        method: A key of `METHODS`.
        rank: Of the projection; adamw and sophia project nothing without one.
        target_modules: Linear layers that are projected, as far as they are trained: `all-linear` (those inside the
            transformer blocks, fused experts too), or endings of names, `re:` for a regular expression.
        exclude_modules: Patterns of layers that are not.
        project_embeddings: Project embedding and output head too.
        max_consumed_norm: Clip the global norm of what the step consumes, which for GaLore is the projected gradient;
            the only clipping that holds with `update="in_backward"`. 0: none. Stands in place of `max_grad_norm`.
        options: Of the optimizer, e.g. refresh_interval, scale, side, basis, preset; seed: that of `args` if not given.

    Raises:
        ConfigError: E-CFG-007 for an unknown option, E-CFG-014 if one contradicts `args`, E-CFG-016 if targets do not
            fit, E-CFG-018 if the method is unknown, and what the optimizer raises.
        MethodError: E-MTH-001 for sharded weights, and for updates in the backward pass with more than one device.
    """
    chosen = _checked(args, method, rank, max_consumed_norm, options)
    groups = parameter_groups(
        model,
        rank=chosen.rank if rank is None else rank,
        target_modules=target_modules,
        exclude_modules=exclude_modules,
        project_embeddings=project_embeddings,
        weight_decay=args.weight_decay,
    )
    given = {"seed": args.seed, **chosen.options, **options, **_adam_numbers(args, chosen)}
    optimizer: SubspaceOptimizer = chosen.kind()(groups, lr=args.learning_rate, **given)
    if max_consumed_norm:
        optimizer.register_step_pre_hook(lambda *_: _clip(optimizer, max_consumed_norm))
    if method == "sophia":
        from subspace.integrations.curvature_callback import require_curvature

        require_curvature(optimizer)
    return optimizer


def optimizer_cls_and_kwargs(
    args: Any, method: str = "galore", **options: Any
) -> tuple[type[OptimizerFactory], dict[str, Any]]:
    """Return the argument of that name of a Trainer, which then makes the optimizer itself, when it has its model.

    The one way where the Trainer makes or changes the model: `model_init`, `peft_config`, a hyperparameter search.

    Args:
        args: The TrainingArguments or SFTConfig that the Trainer gets too.
        method: A key of `METHODS`.
        options: Those of `create_optimizer`.

    Raises:
        ConfigError, MethodError: As `create_optimizer`, what concerns the model when training begins.
    """
    own = {key: value for key, value in options.items() if key not in (*_PLACING, "rank", "max_consumed_norm")}
    _checked(args, method, options.get("rank"), options.get("max_consumed_norm", 0.0), own)
    return OptimizerFactory, {"args": args, "method": method, **options}


class OptimizerFactory:
    """What a Trainer calls with its model: anything that is no optimizer class is a factory to it."""

    def __call__(self, model: nn.Module, **kwargs: Any) -> SubspaceOptimizer:
        return create_optimizer(model, **kwargs)


def _clip(optimizer: SubspaceOptimizer, max_norm: float) -> None:
    optimizer.clip_grad_norm_(max_norm)


def _adam_numbers(args: Any, chosen: _Method) -> dict[str, Any]:
    """Return betas and eps in the words of the optimizer."""
    if "adam_beta2" not in chosen.reads:
        return {"beta1": args.adam_beta1 or None}
    numbers: dict[str, Any] = {"betas": (args.adam_beta1, args.adam_beta2)}
    return numbers | ({"eps": args.adam_epsilon} if "adam_epsilon" in chosen.reads else {})


def _checked(args: Any, method: str, rank: int | None, max_consumed_norm: float, options: Mapping[str, Any]) -> _Method:
    """Return the method after every check that needs no model."""
    chosen = METHODS.get(method)
    if chosen is None:
        close = nearest(method, METHODS)
        raise ConfigError(
            "E-CFG-018",
            where="method",
            found=repr(method),
            expected=f"one of {', '.join(METHODS)}",
            action=f"Did you mean {close!r}?" if close else "",
        )
    kind = chosen.kind()
    known = (*inspect.signature(kind).parameters, "rank", *_PLACING)
    for key in options:
        if key not in known:
            close = nearest(key, known)
            raise ConfigError(
                "E-CFG-007",
                where=key,
                found=f"no option of {method}",
                action=f"Did you mean {close!r}?" if close else "",
            )
    if rank is None and chosen.rank is None:
        raise ConfigError("E-CFG-011", where="rank", found=f"none for {method}", action="Give rank=128, for example.")
    _check_numbers(args, method, chosen, options)
    _check_clipping(args, max_consumed_norm)
    _check_sharding(args)
    given = {key: value for key, value in options.items() if key in _SETTINGS}
    settings = projection_settings(kind.built_in, given, options.get("preset"))
    if settings.update == "in_backward":
        _check_backward_updates(args, method, settings.full_accumulator, kind, max_consumed_norm)
    return chosen


def _check_numbers(args: Any, method: str, chosen: _Method, options: Mapping[str, Any]) -> None:
    """Refuse numbers that would be given twice, and numbers that nobody would read."""
    twice = {"lr": "learning_rate", "weight_decay": "weight_decay", "betas": "adam_beta1", "beta1": "adam_beta1"}
    if "adam_epsilon" in chosen.reads:
        twice["eps"] = "adam_epsilon"
    for key in options.keys() & twice.keys():
        raise ConfigError(
            "E-CFG-014",
            where=key,
            found=f"{key} beside {_WHERE}.{twice[key]}, which decides it",
            action=f"Set it in the {_WHERE}.",
        )
    for key in ("optim_target_modules", "optim_args"):
        if getattr(args, key, None):
            raise ConfigError(
                "E-CFG-014",
                where=f"{_WHERE}.{key}",
                found="options for the Trainer's own optimizers, which are not used",
                action="Give target_modules, rank and the rest to this function instead.",
            )
    fields = type(args).__dataclass_fields__
    for key in _ADAM:
        value = getattr(args, key)
        if key not in chosen.reads and value != fields[key].default:
            raise ConfigError(
                "E-CFG-014",
                where=f"{_WHERE}.{key}",
                found=f"{value} with {method}, which has no such number",
                action="Leave it out.",
            )


def _check_clipping(args: Any, max_consumed_norm: float) -> None:
    if not (math.isfinite(max_consumed_norm) and max_consumed_norm >= 0):
        raise ConfigError("E-CFG-009", where="max_consumed_norm", found=repr(max_consumed_norm), expected="0 or more")
    if max_consumed_norm and args.max_grad_norm > 0:
        raise ConfigError(
            "E-CFG-014",
            where=f"{_WHERE}.max_grad_norm",
            found=f"{args.max_grad_norm} beside max_consumed_norm {max_consumed_norm}: clipped twice",
            action="Set one of the two to 0.",
        )


def _check_sharding(args: Any) -> None:
    asked = [name for name in ("fsdp", "deepspeed") if getattr(args, name, None)]
    launched = [name for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED") if os.environ.get(name) == "true"]
    if asked or launched:
        raise MethodError(
            "E-MTH-001",
            where=(asked or launched)[0],
            found="sharded weights: a part of a matrix has another subspace than the matrix",
            action="Train with one process, or with plain data parallelism.",
        )


def _check_backward_updates(
    args: Any, method: str, full_accumulator: bool, kind: type[SubspaceOptimizer], max_consumed_norm: float
) -> None:
    """Refuse what cannot be true when gradients are used and freed in the backward pass."""
    devices = max(args.world_size, args.n_gpu)
    if devices > 1:
        raise MethodError(
            "E-MTH-001",
            where="update",
            found=f"'in_backward' on {devices} devices: gradients are used before the reduction",
            action="Use update='after_backward'.",
        )
    whole = kind.needs_whole_gradient
    rows = [
        ("fp16", args.fp16, "its loss scaling looks for overflow in gradients that are gone", "Use bf16."),
        (
            "auto_find_batch_size",
            args.auto_find_batch_size,
            "a failed step would leave half of its gradients behind",
            "",
        ),
    ]
    if not whole:
        action = "Set it to 0 and clip by max_consumed_norm, which sees the projected gradients."
        rows.append(
            ("max_grad_norm", args.max_grad_norm > 0, "the Trainer's clipping sees no projected gradient", action)
        )
    elif not full_accumulator:
        reason = f"{method} needs whole gradients and has used them up"
        action = "Set it to 0, or full_accumulator=True."
        rows.append(("max_grad_norm", args.max_grad_norm > 0, reason, action))
        rows.append(("max_consumed_norm", max_consumed_norm > 0, reason, action))
        action = "Set it to 1, or full_accumulator=True."
        rows.append(("gradient_accumulation_steps", args.gradient_accumulation_steps > 1, reason, action))
    for key, clashes, reason, action in rows:
        if clashes:
            raise ConfigError(
                "E-CFG-014",
                where=key if key == "max_consumed_norm" else f"{_WHERE}.{key}",
                found=f"{key} with update='in_backward': {reason}",
                action=action,
            )
