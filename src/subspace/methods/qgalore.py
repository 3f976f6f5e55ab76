"""Q-GaLore: GaLore with moments of 8 bits, bases of 4 bits, and refreshes that grow rare where a basis hardly moves.

    as GaLore; at each refresh after the first: if the overlap |P'^T P|^2 / r of new and old basis is at least 0.4, the
    weight's next refresh comes after twice as many steps, else after `refresh_interval`

The other half of the paper, int8 weights with stochastic rounding, is `model.trained_weights: int8`.

References: Zhang et al. 2024, arXiv 2407.08296. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from subspace.config.base import Synonym
from subspace.methods.base import MethodCard
from subspace.methods.projected import ProjectedMethod
from subspace.methods.projection_config import SHARED_REFUSALS, ProjectionConfig, foreign_names, optimizer_refusals
from subspace.optim.settings import ProjectionSettings

__all__ = ["QGaLore", "QGaLoreConfig"]


class QGaLoreConfig(ProjectionConfig):
    """GaLore with quantized state and lazy refreshes."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {**ProjectionConfig.synonyms, **foreign_names("galore")}

    built_in: ClassVar[ProjectionSettings] = ProjectionSettings(
        scale=0.25, state_bits=8, basis_bits=4, refresh="adaptive"
    )
    optimizer: ClassVar[str] = "projected:QuantizedProjectedAdamW"

    name: Literal["qgalore"] = "qgalore"
    scale: float = Field(default=0.25, gt=0.0)
    """Factor on the lifted update."""
    basis_bits: Literal[32, 4] = 4
    """Width of the bases."""


class QGaLore(ProjectedMethod):
    """Quantized GaLore."""

    card = MethodCard(
        name="qgalore",
        summary="GaLore with moments of 8 bits, bases of 4 bits and lazy refreshes.",
        family="projection",
        reference="Zhang et al. 2024, arXiv 2407.08296",
        low_rank="Gradients and moments of the projected weights; the change of a weight has any rank in the end.",
        use_when="GaLore in the least memory; with model.trained_weights int8 the weights are codes too.",
        cost="m n trained numbers; state m' r / 2 + 2 n' r bytes and their scales; decompositions grow rare",
        refuses=(*SHARED_REFUSALS, *optimizer_refusals("QuantizedProjectedAdamW")),
        differs=(
            "Laziness is decided by the mean overlap of whole subspaces at the last five refreshes, which knows no "
            "signs, not by the cosine of first vectors, whose arbitrary sign blocks it.",
            "An interval grows to 32 times the given one at most, and falls back when the basis moves again.",
            "Codes of 4 bits are packed two to a byte; the official code spends a byte on each.",
            "Moments are coded by a curve in place of a table, and rounded at random, so that slow averages move.",
            "There is no fidelity reference: the official moments are rounded in the kernels of another library.",
            "Weights stay as they are stored unless model.trained_weights says int8.",
        ),
    )
    config_class = QGaLoreConfig
