"""The recipe keys of methods that train through a projection, and what they refuse. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from subspace.config.base import Synonym, conflict
from subspace.config.foreign import SIDES
from subspace.core.errors import SubspaceError
from subspace.methods.adapter import TargetConfig
from subspace.methods.base import Refusal
from subspace.optim.refusals import REFUSALS, refused
from subspace.optim.settings import Preset, ProjectionSettings, projection_settings

__all__ = ["SHARED_REFUSALS", "WHOLE_GRADIENT_REFUSALS", "ProjectionConfig", "foreign_names", "optimizer_refusals"]

_IN_BACKWARD = ("method.update", ("in_backward",))
_KEEPS_NOTHING = ("method.full_accumulator", (None, False))
_USED_UP = "An update in the backward pass uses the whole gradient up at once; method.full_accumulator keeps it"

SHARED_REFUSALS = (
    Refusal(
        "training.optim",
        ("adamw_8bit", "paged_adamw_8bit"),
        "It brings its own optimizer; method.state_bits sets the width of its moments.",
    ),
    Refusal(
        "model.quantization",
        ("int8", "nf4"),
        "Quantized weights have no gradients; model.trained_weights: int8 trains codes.",
        when=(("method.target", ("weights",)),),
    ),
    Refusal(
        "training.mixed_precision",
        ("fp16",),
        "Loss scaling looks for overflow in whole gradients, which an update in the backward pass has freed; use bf16.",
        when=(_IN_BACKWARD,),
    ),
)
"""What no method of the family can be combined with."""
WHOLE_GRADIENT_REFUSALS = (
    Refusal(
        "training.gradient_accumulation_steps",
        (1,),
        f"{_USED_UP}, so that it can be accumulated.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
    Refusal(
        "training.max_grad_norm",
        (0.0,),
        f"{_USED_UP}, so that its norm can be clipped.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
    Refusal(
        "training.max_bad_steps",
        (0,),
        f"{_USED_UP}, so that a step can be skipped.",
        all_but=True,
        when=(_IN_BACKWARD, _KEEPS_NOTHING),
    ),
)
"""What methods that need the whole gradient cannot be combined with when they update in the backward pass."""


def optimizer_refusals(optimizer: str, when: tuple[tuple[str, tuple[object, ...]], ...] = ()) -> tuple[Refusal, ...]:
    """Return what the table `optim.refusals` says of an optimizer, in the recipe's keys.

    Args:
        optimizer: Name of its class.
        when: Keys and values with which the method uses it.
    """
    rows = (row for row in REFUSALS if row.optimizer == optimizer)
    return tuple(Refusal(f"method.{row.key}", row.values, row.reason, when=when) for row in rows)


def foreign_names(prefix: str) -> dict[str, Synonym]:
    """Return the names of a method's options in files of LLaMA-Factory and ms-swift, such as `galore_rank`."""
    return {
        f"{prefix}_rank": Synonym("rank"),
        f"{prefix}_update_interval": Synonym("refresh_interval"),
        f"{prefix}_update_proj_gap": Synonym("refresh_interval"),
        f"{prefix}_scale": Synonym("scale"),
        f"{prefix}_proj_type": Synonym("side", SIDES),
        f"{prefix}_target": Synonym("target_modules"),
        f"{prefix}_with_embedding": Synonym("project_embeddings"),
    }


class ProjectionConfig(TargetConfig):
    """Which weights are projected, into what, and how the state is kept."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        **{key: value for key, value in TargetConfig.synonyms.items() if key != "target"},
        "r": Synonym("rank"),
        "update_proj_gap": Synonym("refresh_interval"),
        "T": Synonym("refresh_interval"),
        "proj_type": Synonym("side", SIDES),
    }

    built_in: ClassVar[ProjectionSettings]
    """The method's own defaults."""
    optimizer: ClassVar[str]
    """Its optimizer, as `module:Class` in `subspace.optim`."""
    needs_whole_gradient: ClassVar[bool] = False
    """Whether the optimizer needs a gradient itself and not its projection alone."""

    rank: int = Field(default=128, ge=1)
    """Dimension of the subspace, r."""
    refresh_interval: int = Field(default=200, ge=1)
    """Optimizer steps between new bases."""
    target: Literal["weights", "adapter"] = "weights"
    """Train the model's weights, or a LoRA adapter beside frozen ones."""
    target_modules: Literal["all-linear"] | tuple[str, ...] | None = "all-linear"
    """What is projected (or adapted): `all-linear`, or endings of names; `re:` begins a regular expression."""
    project_embeddings: bool = False
    """Project the embedding and the output head too, which hold most of a small model's optimizer state."""
    adapter_rank: int = Field(default=32, ge=1)
    """With `target: adapter`: rank of the LoRA adapter."""
    adapter_alpha: float = Field(default=64.0, gt=0.0)
    """With `target: adapter`: numerator of its factor."""
    adapter_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """With `target: adapter`: share of its inputs that is dropped."""
    preset: Preset | None = None
    """`paper`, `fast` (warm, staggered refreshes) or `small` (the same, moments of 8 bits), in place of the options;
    projections that are drawn and intervals that adapt stay what they are."""
    side: Literal["shorter", "longer", "left", "right", "both"] | None = None
    """Dimension in which the basis lives; absent: the shorter one."""
    basis: Literal["svd", "gram", "randomized", "warm", "random"] | None = None
    """How a basis is found; absent: as published."""
    refresh: Literal["interval", "staggered", "adaptive"] | None = None
    """All at once, spread over the weights, or less often where the basis hardly moves; absent: all at once."""
    moments: Literal["keep", "zero", "transport"] | None = None
    """What becomes of the moments at a refresh; absent: kept."""
    state_bits: Literal[32, 8, 4] | None = None
    """Width of the moments; absent: 32."""
    fidelity: Literal["paper", "reference"] = "paper"
    """The published method, or the official code step for step."""
    update: Literal["after_backward", "in_backward"] = "after_backward"
    """Update after the backward pass, or use and free each gradient as soon as it exists."""
    refresh_from: Literal["step", "micro_batch"] = "step"
    """With `update: in_backward`: find a basis from the gradient of the whole step, kept in full meanwhile, or from
    that of its first micro-batch."""
    full_accumulator: bool | None = None
    """With `update: in_backward`, where the method needs the whole gradient: keep it until the step, so that
    accumulation and clipping work."""

    microscope: bool = True
    """Write figures of every refresh into the log: captured energy, angles, effective rank, drift, update norm."""

    @model_validator(mode="after")
    def _decided_once(self) -> ProjectionConfig:
        try:
            settings = self.settings()
        except SubspaceError as error:
            raise conflict(error.where.removeprefix("method."), error.found, error.action) from None
        row = refused(self.optimizer_place().partition(":")[2], settings)
        if row is not None:
            key = "preset" if getattr(self, row.key) is None else row.key
            found = f"{row.key} {_word(getattr(settings, row.key))} with method {self.name}: {row.reason}"
            raise conflict(key, found, "Change one of the two.")
        for keys, condition in self.unread():
            for key in keys:
                if getattr(self, key) not in (type(self).model_fields[key].default, False):
                    found = f"{key} is given, and nothing reads it {condition}"
                    raise conflict(key, found, "Leave it out, or change the other.")
        return self

    def optimizer_place(self) -> str:
        """Return the optimizer that the options ask for."""
        return self.optimizer

    def unread(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the keys that nothing reads beside the others, and beside which."""
        if self.target == "weights":
            yield ("adapter_rank", "adapter_alpha", "adapter_dropout"), "with target weights"
        else:
            yield ("project_embeddings",), "with target adapter"
        if self.update == "after_backward":
            yield ("refresh_from", "full_accumulator"), "with update after_backward"
        elif self.needs_whole_gradient:
            yield ("refresh_from",), f"with method {self.name}, which needs whole gradients"

    def settings(self, seed: int = 0) -> ProjectionSettings:
        """Return the optimizer's options, the method's own defaults filled in."""
        given = {name: getattr(self, name) for name in ProjectionSettings.__slots__ if hasattr(self, name)}
        return projection_settings(self.built_in, given | {"seed": seed}, self.preset, where="method")


def _word(value: object) -> str:
    """Return a value as a recipe would hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
