"""StelLA's layer: a frozen linear layer plus U S V^T, in singular-value form, beside any linear layer of a model.

    y = W x + s U (S (V^T dropout(x))),   U^T U = V^T V = I,   s = alpha / r, or alpha / sqrt(r) with rslora

Both factors are stored as tall matrices, `stella_U` (m, r) and `stella_V` (n, r): factors of equal height are one batch
for `optim.riemannian.StiefelSteps`, which keeps them orthonormal. `stella_S` is a vector (diagonal) or (r, r). All are
float32 whatever the base is. The model is changed in place and stays of its class, so it trains in any loop:

    model = add_stella(model, ["q_proj", "v_proj"], rank=8, alpha=16)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=5e-4)
    StiefelSteps(optimizer, stiefel_factors(model), gradient_scaling=hidden_size(model))
    ...
    export_stella(model, folder)            # adapters.stella_lora: a plain PEFT LoRA of the same rank and alpha

m rows (out_features), n columns (in_features), r rank.

References: Li et al. 2025, arXiv 2510.01938 (StelLA).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.adapters import peft_bridge
from subspace.adapters.specs import ADAPTER, head_modules
from subspace.core.errors import MethodError, NotMergeableError
from subspace.core.seeding import derive_seed
from subspace.plan.inventory import take_inventory
from subspace.plan.placement import check_rank, default_targets, match_linear
from subspace.plan.shapes import Placement

__all__ = [
    "Init",
    "StellaLinear",
    "StellaOptions",
    "TrainedHead",
    "add_stella",
    "attach_stella",
    "fold_stella",
    "hidden_size",
    "stella_layers",
    "stiefel_factors",
    "trained_heads",
]

Init = Literal["random", "svd_major", "svd_minor", "zero"]


@dataclass(frozen=True, slots=True)
class StellaOptions:
    """What all layers of a model share.

    Attributes:
        alpha: Numerator of the factor s.
        rslora: s = alpha / sqrt(r) in place of alpha / r.
        dropout: Share of the inputs of V^T that is dropped while training.
        diagonal: S is a vector; else (r, r).
        init: `random` (U, V random, S = I), `svd_major` or `svd_minor` (leading or last singular vectors of W, S = I),
            `zero` (as random, S = 0: the model starts as it was).
    """

    alpha: float = 16.0
    rslora: bool = False
    dropout: float = 0.0
    diagonal: bool = True
    init: Init = "random"


class StellaLinear(nn.Module):
    """y = W x + s U (S (V^T dropout(x))) around a frozen `base_layer`; starting values are set apart."""

    def __init__(self, base: nn.Module, rank: int, options: StellaOptions) -> None:
        super().__init__()
        rows, columns = _features(base)
        device = next(base.parameters()).device
        self.base_layer = base
        self.options = options
        self.rank, self.in_features, self.out_features = rank, columns, rows
        self.scale = options.alpha / (math.sqrt(rank) if options.rslora else rank)
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.stella_U = nn.Parameter(torch.empty(rows, rank, device=device, dtype=torch.float32))
        self.stella_V = nn.Parameter(torch.empty(columns, rank, device=device, dtype=torch.float32))
        size = (rank,) if options.diagonal else (rank, rank)
        self.stella_S = nn.Parameter(torch.empty(size, device=device, dtype=torch.float32))

    @property
    def weight(self) -> Any:
        """The base's weight, for models that ask a layer for its type."""
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        inner = functional.linear(self.dropout(x.to(self.stella_V.dtype)), self.stella_V.T)
        # s goes with S: r numbers per token, not m
        inner = inner * (self.stella_S * self.scale) if self.options.diagonal else self._full(inner)
        if result.dtype == inner.dtype:
            flat = torch.addmm(result.reshape(-1, self.out_features), inner.reshape(-1, self.rank), self.stella_U.T)
            return flat.view(result.shape)
        return (result + functional.linear(inner, self.stella_U)).to(result.dtype)

    def _full(self, inner: Tensor) -> Tensor:
        return functional.linear(inner, self.stella_S * self.scale)

    def lora_factors(self) -> tuple[Tensor, Tensor]:
        """Return (A, B) = (V^T, U S), so that the change of the weight is s B A."""
        spectrum = self.stella_S.detach()
        left = self.stella_U.detach() * spectrum if self.options.diagonal else self.stella_U.detach() @ spectrum
        return self.stella_V.detach().T, left

    def delta_weight(self) -> Tensor:
        """Return s U S V^T, (m, n)."""
        right, left = self.lora_factors()
        return self.scale * left @ right


class TrainedHead(nn.Module):
    """A copy of a classification head that is trained; the frozen one stays, under PEFT's names for both."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.original_module = head
        self.modules_to_save = nn.ModuleDict({ADAPTER: copy.deepcopy(head).requires_grad_(True)})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.modules_to_save[ADAPTER](*args, **kwargs)


def add_stella(
    model: nn.Module,
    target_modules: Iterable[str] | Literal["all-linear"] | None = None,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    rslora: bool = False,
    dropout: float = 0.0,
    diagonal: bool = True,
    init: Init = "random",
    seed: int = 0,
) -> nn.Module:
    """Freeze a transformers model and put StelLA beside its linear layers, in place; return the same model.

    Args:
        model: A transformers model; a classifier's new head is trained as well.
        target_modules: `all-linear`, or endings of names, `re:` for a regular expression; None: the family's usual.
        rank: r of every layer.
        alpha, rslora, dropout, diagonal, init: See `StellaOptions`.
        seed: Of the starting values; a module draws the same numbers whatever else is adapted.

    Raises:
        ConfigError: E-CFG-016 if a pattern matches nothing or the rank does not fit; E-CFG-017 on a tied weight.
        MethodError: E-MTH-001 if the model has StelLA already.
    """
    inventory = take_inventory(model, task="classification" if _is_classifier(model) else "causal_lm")
    if target_modules is None:
        target_modules = default_targets(inventory.model_type)
    targets: Any = target_modules if target_modules == "all-linear" else tuple(target_modules)
    shapes = match_linear(inventory, targets, (), "target_modules")
    for shape in shapes:
        check_rank(shape, rank, "rank")
    options = StellaOptions(alpha, rslora, dropout, diagonal, init)
    attach_stella(model, [Placement(shape.name, rank) for shape in shapes], options, seed)
    return model


def attach_stella(model: nn.Module, placements: Iterable[Placement], options: StellaOptions, seed: int) -> None:
    """Freeze `model` and put a layer of its rank around every placed module, in place.

    Raises:
        MethodError: E-MTH-001 if the model has StelLA already.
    """
    if stella_layers(model):
        raise MethodError("E-MTH-001", where=type(model).__name__, found="a model that has StelLA already")
    model.requires_grad_(False)
    peft_bridge.keep_int8_scales(model)
    live: Any = model
    if hasattr(model, "disable_input_require_grads"):
        live.disable_input_require_grads()  # or checkpointing would send the backward pass to the bottom
    for placement in placements:
        parent, _, child = placement.module.rpartition(".")
        layer = StellaLinear(model.get_submodule(placement.module), placement.rank, options)
        _start(layer, torch.Generator().manual_seed(derive_seed(seed, "init", placement.module)))
        setattr(model.get_submodule(parent), child, layer)
    if _is_classifier(model):
        for head in head_modules(name for name, _ in model.named_parameters()):
            setattr(model, head, TrainedHead(model.get_submodule(head)))


def stella_layers(model: nn.Module) -> dict[str, StellaLinear]:
    """Return the layers by the name that the adapted module has in the base model."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, StellaLinear)}


def stiefel_factors(model: nn.Module) -> list[nn.Parameter]:
    """Return every U and V: what an optimizer must keep orthonormal."""
    return [factor for layer in stella_layers(model).values() for factor in (layer.stella_U, layer.stella_V)]


def hidden_size(model: nn.Module) -> int:
    """Return the width of a transformers model, the usual reference width of gradient scaling."""
    config: Any = model.config
    return int(config.get_text_config(decoder=True).hidden_size)


@torch.no_grad()
def fold_stella(model: nn.Module) -> nn.Module:
    """Put s U S V^T into the weights and trained heads into their places, in place; return the plain model.

    Raises:
        NotMergeableError: E-CKP-008 if there is no StelLA (any more), or the base is quantized.
    """
    where, layers = type(model).__name__, stella_layers(model)
    if not layers:
        raise NotMergeableError("E-CKP-008", where=where, found="no adapter, or it is folded already")
    if peft_bridge.is_quantized(model):
        found = "a quantized base, whose weights cannot hold the adapter exactly"
        action = "Keep the adapter, or fold it onto the unquantized base."
        raise NotMergeableError("E-CKP-008", where=where, found=found, action=action)
    for name, layer in layers.items():
        weight, delta = layer.base_layer.weight, layer.delta_weight()
        assert isinstance(weight, Tensor)
        weight.copy_(weight.float() + (delta if isinstance(layer.base_layer, nn.Linear) else delta.T))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.base_layer)
    for name, head in trained_heads(model).items():
        setattr(model, name, head.modules_to_save[ADAPTER])
    return model.requires_grad_(False)


@torch.no_grad()
def _start(layer: StellaLinear, source: torch.Generator) -> None:
    """Set starting values, drawn on the CPU, so that they are the same on every device."""
    options, rank = layer.options, layer.rank
    if options.init.startswith("svd"):
        left, _, right = torch.linalg.svd(_base_weight(layer.base_layer), full_matrices=False)
        chosen = slice(0, rank) if options.init == "svd_major" else slice(left.shape[1] - rank, None)
        layer.stella_U.copy_(left[:, chosen])
        layer.stella_V.copy_(right[chosen].T)
    else:
        for factor in (layer.stella_U, layer.stella_V):
            factor.copy_(nn.init.orthogonal_(torch.empty(factor.shape), generator=source))
    value = 0.0 if options.init == "zero" else 1.0
    layer.stella_S.copy_(torch.full((rank,), value) if options.diagonal else value * torch.eye(rank))


def _base_weight(base: Any) -> Tensor:
    """Return W (m, n) in float32, dequantized where it is stored in codes."""
    if not isinstance(base, nn.Linear):
        return base.weight.float().T  # type: ignore[no-any-return]  # transformers' Conv1D keeps it transposed
    if base.weight.is_floating_point():
        return base.weight.float()
    from peft.utils.integrations import dequantize_module_weight

    weight: Tensor = dequantize_module_weight(base)
    return weight.float()


def _features(module: nn.Module) -> tuple[int, int]:
    """Return (m, n)."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    columns, rows = module.weight.shape  # type: ignore[misc]  # transformers' Conv1D
    return rows, columns


def trained_heads(model: nn.Module) -> dict[str, TrainedHead]:
    """Return the heads that are trained beside the layers; none unless the model classifies."""
    return {name: head for name, head in model.named_children() if isinstance(head, TrainedHead)}


def _is_classifier(model: nn.Module) -> bool:
    return type(model).__name__.endswith("ForSequenceClassification")
