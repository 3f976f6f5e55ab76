"""What an optimizer cannot be asked for: one table, a reason in every row. Imports no torch.

Every other combination of an optimizer with a side, basis, refresh, treatment of moments, width, fidelity and time of
the update runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from subspace.core.errors import ConfigError
from subspace.optim import public_name
from subspace.optim.settings import ProjectionSettings

__all__ = ["REFUSALS", "AxisRefusal", "refuse", "refused"]


@dataclass(frozen=True, slots=True)
class AxisRefusal:
    """Values of one option that an optimizer refuses, and why."""

    optimizer: str
    key: str
    values: tuple[object, ...]
    reason: str


_NO_CHANNELS = "Its factor belongs to a row or a column; between two bases there is neither."
_NOT_ORTHONORMAL = (
    "Its projections are random and not orthonormal, so that moments have no exact way from one to the next."
)
_NOTHING_TO_TRACK = "Its projections are drawn whatever the gradient, so that their overlap says nothing."
_NO_REFERENCE = (
    "Its official code rounds in the kernels of another library and follows the arbitrary signs of singular vectors."
)
_ACCUMULATES = "It needs the projection of a gradient only, and accumulates that."

REFUSALS: tuple[AxisRefusal, ...] = (
    AxisRefusal("ProjectedAdamW", "full_accumulator", (True,), _ACCUMULATES),
    AxisRefusal("QuantizedProjectedAdamW", "full_accumulator", (True,), _ACCUMULATES),
    AxisRefusal("QuantizedProjectedAdamW", "fidelity", ("reference",), _NO_REFERENCE),
    AxisRefusal("PlainAdamW", "full_accumulator", (True,), _ACCUMULATES),
    AxisRefusal("ProjectedAdafactor", "full_accumulator", (True,), _ACCUMULATES),
    AxisRefusal(
        "ProjectedAdafactor",
        "moments",
        ("transport",),
        "Its second moment is kept as row and column means, which do not turn with a basis.",
    ),
    AxisRefusal("ResidualAdamW", "side", ("both",), _NO_CHANNELS),
    *(
        AxisRefusal(optimizer, key, values, reason)
        for optimizer in ("ChannelScaledAdamW", "TensorScaledAdamW")
        for key, values, reason in (
            ("side", ("both",), _NO_CHANNELS),
            ("moments", ("transport",), _NOT_ORTHONORMAL),
            ("refresh", ("adaptive",), _NOTHING_TO_TRACK),
        )
    ),
    AxisRefusal(
        "SketchedAdafactor",
        "basis",
        ("svd", "gram", "randomized", "warm"),
        "Its momentum is unbiased because its projection is random.",
    ),
    AxisRefusal("SketchedAdafactor", "side", ("both",), "Its momentum is projected on one side."),
    AxisRefusal(
        "SketchedAdafactor",
        "moments",
        ("zero", "transport"),
        "It has its own way to carry the momentum to a new basis.",
    ),
    AxisRefusal("SketchedAdafactor", "refresh", ("adaptive",), _NOTHING_TO_TRACK),
    AxisRefusal(
        "CurvatureClipped",
        "moments",
        ("transport",),
        "Its second state is a curvature and not the variance whose rotation is known.",
    ),
    AxisRefusal("CurvatureClipped", "full_accumulator", (True,), _ACCUMULATES),
    AxisRefusal(
        "CurvatureClipped",
        "fidelity",
        ("reference",),
        "Its official code draws the labels of its estimate from torch's own generator.",
    ),
    AxisRefusal(
        "CurvatureClipped",
        "update",
        ("in_backward",),
        "Its curvature comes from a second backward pass, whose gradients must not become updates.",
    ),
)


def refused(optimizer: str, settings: ProjectionSettings) -> AxisRefusal | None:
    """Return the first row of the table that the settings break."""
    rows = (row for row in REFUSALS if row.optimizer == optimizer and getattr(settings, row.key) in row.values)
    return next(rows, None)


def refuse(optimizer: str, settings: ProjectionSettings) -> None:
    """Check settings against the table.

    Raises:
        ConfigError: E-CFG-014 with the reason.
    """
    row = refused(optimizer, settings)
    if row is not None:
        raise ConfigError(
            "E-CFG-014",
            where=row.key,
            found=f"{getattr(settings, row.key)!r} with {public_name(optimizer)}: {row.reason.rstrip('.')}",
            action="Change one of the two.",
        )
