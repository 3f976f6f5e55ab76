"""The changes that make a run fit into given memory, in order of least harm; each is planned anew, none is estimated.

    none      the result stays the same up to rounding: how the same numbers are computed
    rounding  arithmetic, moments or weights in fewer bits
    bases     bases from a part of a step's rows
    codes     weights as 8-bit or 4-bit codes
    subspace  fewer numbers are trained
    rows      longer rows are cut

A change is kept where it lowers the peak by a hundredth, and is built upon; a harmless one that saves nothing is tried
again once others have moved the peak elsewhere. What the recipe's method or its other keys refuse is passed over. The
search knows keys of a recipe, and no method. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from subspace.core.errors import ConfigError, MethodError
from subspace.plan.plan import Plan

__all__ = ["HARMS", "Change", "Fit", "Planned", "Trial", "find_fit", "next_changes"]

Harm = Literal["none", "rounding", "bases", "codes", "subspace", "rows"]
HARMS: tuple[Harm, ...] = get_args(Harm)
"""From the least to the most."""

_MIN_SAVING = 0.01
_MIN_LENGTH, _MIN_RANK = 64, 4
_CHUNKS = (256, 64)
"""Positions of a chunk of the loss: enough to keep a device busy, and fewer."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step away from a recipe.

    Attributes:
        name: What it is about; the same for all steps of a kind, such as halving.
        values: New values by dotted key.
        cost: What is given up for it.
        harm: How far the result may move.
    """

    name: str
    values: Mapping[str, str]
    cost: str
    harm: Harm = "none"

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True, slots=True)
class Planned:
    """A recipe's plan, and the recipe as plain values with every default filled in."""

    plan: Plan
    tree: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one change on top of those kept before it; of one that was tried again, the last time."""

    overrides: tuple[str, ...]
    cost: str
    harm: Harm
    peak_bytes: int | None
    """Predicted; None if the change is refused."""
    kept: bool
    fits: bool
    reason: str = ""
    """Why it is not kept."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What the search found.

    Attributes:
        limit_bytes: What the peak has to fit into.
        first_bytes: Predicted peak of the recipe as it is.
        peak_bytes: Predicted peak with all overrides; the lowest that was reached.
        overrides: All kept changes together, the last value of each key.
        trials: In the order in which they were planned.
    """

    limit_bytes: int
    first_bytes: int
    peak_bytes: int
    overrides: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()

    @property
    def fits(self) -> bool:
        return self.peak_bytes <= self.limit_bytes

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "fits": self.fits}


def find_fit(limit_bytes: int, start: Planned, replan: Callable[[Sequence[str]], Planned]) -> Fit:
    """Return the least harmful changes under which the predicted peak is at most `limit_bytes`, or all that helped.

    Args:
        limit_bytes: Bytes that the peak may take.
        start: The recipe as it is.
        replan: Plans the recipe with overrides; raises ConfigError or MethodError for what cannot be combined.
    """
    search = _Search(limit_bytes, replan, start)
    for harm in HARMS:
        while not search.fits and search.sweep(harm):
            pass
    return Fit(
        limit_bytes=limit_bytes,
        first_bytes=start.plan.peak_bytes,
        peak_bytes=search.current.plan.peak_bytes,
        overrides=search.overrides(),
        trials=tuple(search.trials),
    )


@dataclass
class _Search:
    limit_bytes: int
    replan: Callable[[Sequence[str]], Planned]
    current: Planned
    kept: dict[str, str] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    useless: dict[str, int] = field(default_factory=dict)
    """Name of a change to the number of kept ones when it saved nothing."""
    num_kept: int = 0

    @property
    def fits(self) -> bool:
        return self.current.plan.peak_bytes <= self.limit_bytes

    def overrides(self, more: Mapping[str, str] | None = None) -> tuple[str, ...]:
        return tuple(f"{key}={value}" for key, value in {**self.kept, **(more or {})}.items())

    def sweep(self, harm: Harm) -> bool:
        """Try each change up to this harm once, repeated ones until they end; return whether one was kept."""
        before = self.num_kept
        names = [change.name for change in self._open(harm)]
        for name in names:
            while not self.fits:
                change = next((each for each in self._open(harm) if each.name == name), None)
                if change is None or not self._try(change):
                    break
        return self.num_kept > before

    def _open(self, harm: Harm) -> list[Change]:
        """Return what is left to try: neither refused, nor found useless where nothing has changed since."""
        allowed = HARMS[: HARMS.index(harm) + 1]
        return [
            change
            for change in next_changes(self.current)
            if change.harm in allowed
            and change.name not in self.refused
            and (change.name not in self.useless or self._open_again(change))
        ]

    def _open_again(self, change: Change) -> bool:
        return change.harm == HARMS[0] and self.useless[change.name] != self.num_kept

    def _try(self, change: Change) -> bool:
        try:
            planned = self.replan(self.overrides(change.values))
        except (ConfigError, MethodError) as error:
            self.refused.add(change.name)
            self._note(change, None, reason=error.found)
            return False
        peak, before = planned.plan.peak_bytes, self.current.plan.peak_bytes
        if before - peak < _MIN_SAVING * before:
            self.useless[change.name] = self.num_kept
            self._note(change, peak, reason="saves less than a hundredth")
            return False
        self.current, self.num_kept = planned, self.num_kept + 1
        self.kept |= change.values
        self._note(change, peak, kept=True)
        return True

    def _note(self, change: Change, peak: int | None, *, kept: bool = False, reason: str = "") -> None:
        fits = peak is not None and peak <= self.limit_bytes
        self.trials = [trial for trial in self.trials if trial.kept or trial.overrides != change.overrides]
        self.trials.append(Trial(change.overrides, change.cost, change.harm, peak, kept, fits, reason))


def next_changes(planned: Planned) -> Iterator[Change]:
    """Yield the next step of every kind that the recipe leaves open, the least harmful first."""
    recipe = _Recipe(planned)
    for kind in (_computed_otherwise, _rounded, _fewer_rows, _coded, _fewer_numbers, _shorter_rows):
        yield from kind(recipe)


class _Recipe:
    """Looks up dotted keys; a key that the recipe cannot have is absent."""

    def __init__(self, planned: Planned) -> None:
        self.plan, self._tree = planned.plan, planned.tree

    def has(self, key: str, *values: object) -> bool:
        """Return whether the key exists and has one of the values."""
        section, _, name = key.partition(".")
        fields = self._tree.get(section, {})
        return name in fields and fields[name] in values

    def number(self, key: str) -> int:
        """Return the value of a key, 0 if it is absent or no number."""
        section, _, name = key.partition(".")
        value = self._tree.get(section, {}).get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _computed_otherwise(recipe: _Recipe) -> Iterator[Change]:
    positions = recipe.plan.batch.batch_size * recipe.plan.batch.length
    chunk = min(positions, recipe.number("training.loss_chunk_tokens") or positions)
    fewer = next((size for size in _CHUNKS if size < chunk), None)
    if fewer is not None and recipe.has("model.task", "causal_lm", "seq2seq"):
        yield _one("chunks", "training.loss_chunk_tokens", fewer, "hardly any time: logits exist piece by piece")
    if recipe.has("method.update", "after_backward"):
        yield _one("update", "method.update", "in_backward", "little: each gradient is used and freed at once")
    if recipe.has("training.gradient_checkpointing", False):
        yield _one("checkpointing", "training.gradient_checkpointing", "true", "time: blocks are computed twice")
    rows, accumulation = (
        recipe.number(f"training.{key}") for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    if rows > 1:
        fewer = next(size for size in range(rows // 2, 0, -1) if rows % size == 0)
        values = {
            "training.per_device_train_batch_size": str(fewer),
            "training.gradient_accumulation_steps": str(accumulation * rows // fewer),
        }
        yield Change("micro-batch", values, "time: the same rows in more passes")


def _rounded(recipe: _Recipe) -> Iterator[Change]:
    if recipe.has("method.basis", None, "svd"):
        yield _one("basis", "method.basis", "gram", "bases from an eigenproblem of the shorter side", "rounding")
    in_float32 = recipe.plan.weight_bytes >= 3 * recipe.plan.num_parameters
    if in_float32 and recipe.has("training.mixed_precision", "no"):
        yield _one("precision", "training.mixed_precision", "bf16", "arithmetic in 16 bits", "rounding")
    if recipe.has("training.optim", "adamw"):
        yield _one("optimizer", "training.optim", "adamw_8bit", "moments in 8 bits", "rounding")
    if recipe.has("method.state_bits", None, 32):
        yield _one("state", "method.state_bits", 8, "moments in 8 bits", "rounding")
    elif recipe.has("method.state_bits", 8):
        yield _one("state", "method.state_bits", 4, "moments in 4 bits", "rounding")
    if in_float32 and recipe.has("model.dtype", "auto", "float32"):
        yield _one("dtype", "model.dtype", "bfloat16", "weights in 16 bits", "rounding")


def _fewer_rows(recipe: _Recipe) -> Iterator[Change]:
    if recipe.has("method.refresh_from", "step") and recipe.has("method.update", "after_backward", "in_backward"):
        values = {"method.update": "in_backward", "method.refresh_from": "micro_batch"}
        yield Change("bases", values, "bases come from the first micro-batch of a step", "bases")


def _coded(recipe: _Recipe) -> Iterator[Change]:
    quantizable = recipe.plan.quantizable_parameters > 0 and recipe.has("model.quantization", "none")
    if quantizable:
        yield _one("int8", "model.quantization", "int8", "frozen weights as 8-bit codes", "codes")
    if quantizable or recipe.has("model.quantization", "int8"):
        yield _one("nf4", "model.quantization", "nf4", "frozen weights as 4-bit codes", "codes")
    if recipe.has("model.trained_weights", "as_stored"):
        yield _one("weights", "model.trained_weights", "int8", "trained weights as 8-bit codes", "codes")


def _fewer_numbers(recipe: _Recipe) -> Iterator[Change]:
    if recipe.has("method.project_embeddings", False):
        yield _one("embeddings", "method.project_embeddings", "true", "embedding and head in the subspace", "subspace")
    rank = recipe.number("method.rank")
    if rank > _MIN_RANK:
        yield _one("rank", "method.rank", max(_MIN_RANK, rank // 2), "fewer directions in every step", "subspace")


def _shorter_rows(recipe: _Recipe) -> Iterator[Change]:
    length = recipe.number("data.max_length")
    if length > _MIN_LENGTH:
        yield _one("length", "data.max_length", max(_MIN_LENGTH, length // 2), "longer rows are cut", "rows")


def _one(name: str, key: str, value: object, cost: str, harm: Harm = "none") -> Change:
    return Change(name, {key: str(value)}, cost, harm)
