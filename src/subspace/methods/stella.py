"""StelLA: an adapter in singular-value form whose two bases move on the manifold of orthonormal matrices.

    W' = W + s U S V^T,   U (m, r), V (n, r),   U^T U = V^T V = I,   s = alpha / r, or alpha / sqrt(r) with rslora

U and V say which output and input directions the change uses, S (a vector, or r x r) how strongly. The optimizer is the
recipe's own; around each of its steps, for Y = U and Y = V with d rows and gradient G (`optim.riemannian`):

    before:  G <- G - Y G^T Y                                        (gradient of the canonical metric)
    after:   D = sqrt(c / d) (Y~ - Y) ;  D <- D - Y sym(Y^T D) ;  Y <- retraction(Y, D)

With init random the model does not start as it was: U S V^T has r singular values of one. The result is handed out as a
plain LoRA of the same rank, B = U S, A = V^T, without any loss.

Beside two r x r eigenproblems the hooks do 12 (m + n) r^2 FLOPs per layer and step.

References: Li et al. 2025, arXiv 2510.01938. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from subspace.adapters.specs import head_copies
from subspace.config.base import Synonym
from subspace.methods.base import AttachContext, MethodCard
from subspace.methods.low_rank import LowRankConfig, LowRankMethod
from subspace.optim.settings import OptimizerSettings
from subspace.plan.shapes import Account, Inventory, ModuleShape, Placement, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from subspace.adapters.stella import StellaOptions

__all__ = ["Stella", "StellaConfig"]


class StellaConfig(LowRankConfig):
    """An adapter in singular-value form with orthonormal bases."""

    synonyms: ClassVar[Mapping[str, Synonym]] = dict(LowRankConfig.synonyms) | {
        "use_rslora": Synonym("rslora"),
        "grad_scaling": Synonym("gradient_scaling"),
    }

    name: Literal["stella"] = "stella"
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    diagonal: bool = True
    """S is a vector of r numbers; false: a full r x r matrix."""
    retraction: Literal["polar", "exponential"] = "polar"
    """Way back to orthonormal columns: the nearest such matrix, or along a geodesic."""
    gradient_scaling: bool | Annotated[float, Field(gt=0.0)] = True
    """Steps of a basis with d rows are scaled by sqrt(c / d): true: c is the model's hidden size; a number: c."""
    init: Literal["random", "svd_major", "svd_minor", "zero"] = "random"
    """U and V random, leading or last singular vectors of the weight, S = I; zero: as random, S = 0."""


class Stella(LowRankMethod):
    """Subspace learning in low-rank adaptation on the Stiefel manifold."""

    card = MethodCard(
        name="stella",
        summary="An adapter in singular-value form whose two bases move on the manifold of orthonormal matrices.",
        family="adapter",
        reference="Li et al. 2025, arXiv 2510.01938",
        low_rank="The change of every adapted weight has rank r, in the form U S V^T with orthonormal U and V.",
        use_when=(
            "Where LoRA's two factors drift apart or the rank is tight: its bases stay orthonormal at any "
            "learning rate."
        ),
        cost=(
            "(m + n) r + r trained numbers (r + r^2 with a full S), twice as many of state; two r x r "
            "eigenproblems in a step"
        ),
        differs=(
            "The polar retraction solves an r x r eigenproblem instead of a singular value decomposition of (d, r).",
            "The exponential retraction needs no QR decomposition, so it also holds for a rank above d / 2.",
            "Gradient scaling reads the hidden size of the text model where a model has several.",
            "A step that does not move a basis leaves it as it is to the bit.",
            "Initialisation zero (S = 0) is ours: it starts from the base model's function.",
        ),
    )
    config_class = StellaConfig

    def scale(self, rank: int) -> float:
        alpha: float = self.config.alpha
        return alpha / math.sqrt(rank) if self.config.rslora else alpha / rank

    def layer_tensors(self, inventory: Inventory, shape: ModuleShape, rank: int) -> tuple[TensorSpec, ...]:
        spectrum = (rank,) if self.config.diagonal else (rank, rank)
        sizes = {"U": (shape.out_features, rank), "V": (shape.in_features, rank), "S": spectrum}
        return tuple(TensorSpec(f"{shape.name}.stella_{key}", size, trained=True) for key, size in sizes.items())

    def account(self, inventory: Inventory, placements: tuple[Placement, ...]) -> Account:
        layers = super().account(inventory, placements).added
        inside = tuple(tensor for tensor in layers if ".stella_" in tensor.name)
        return Account(added=(*inside, *head_copies(inventory, prefix="")))

    def traced_layer(self, linear: nn.Module, placement: Placement) -> nn.Module:
        from subspace.adapters.stella import StellaLinear

        return StellaLinear(linear, placement.rank, self.options())

    def attach(self, model: nn.Module, placements: tuple[Placement, ...], context: AttachContext) -> nn.Module:
        from subspace.adapters.stella import attach_stella

        attach_stella(model, placements, self.options(restoring=context.restoring), context.seed)
        return model

    def options(self, *, restoring: bool = False) -> StellaOptions:
        """Return what all layers share; a resumed run needs no decomposition."""
        from subspace.adapters.stella import StellaOptions

        config = self.config
        return StellaOptions(
            alpha=config.alpha,
            rslora=config.rslora,
            dropout=config.dropout,
            diagonal=config.diagonal,
            init="zero" if restoring else config.init,
        )

    def optimizer(self, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        """Return the recipe's optimizer with hooks around its step; its state is the only one there is.

        The loop clips before it calls `step`, so clipping sees Euclidean gradients.
        """
        from subspace.adapters.stella import hidden_size, stiefel_factors
        from subspace.optim.adamw import build_adamw
        from subspace.optim.riemannian import StiefelSteps

        wanted = self.config.gradient_scaling
        width = float(hidden_size(model)) if wanted is True else wanted or None
        optimizer = build_adamw(model, settings)
        StiefelSteps(optimizer, stiefel_factors(model), retraction=self.config.retraction, gradient_scaling=width)
        return optimizer

    def continue_from(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.stella_lora import continue_stella

        continue_stella(model, folder)

    def fold(self, model: nn.Module) -> nn.Module:
        from subspace.adapters.stella import fold_stella

        return fold_stella(model)

    def export(self, model: nn.Module, folder: Path) -> None:
        from subspace.adapters.stella_lora import export_stella

        export_stella(model, folder)
