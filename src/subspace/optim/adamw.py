"""AdamW over what a model trains: fused where the device allows, moments in float32, or 8-bit through bitsandbytes.

torch's AdamW keeps the moments in the type of the weights, so bfloat16 weights would get bfloat16 moments and
1 - beta2 = 0.001 would round away; `WideAdamW` keeps float32 moments beside narrow weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subspace.core.errors import ConfigError
from subspace.core.seeding import derive_seed
from subspace.optim.direction import FUSED_DEVICES
from subspace.optim.groups import decay_of, like_groups
from subspace.optim.moments import adamw_update_, adamw_updates_

if TYPE_CHECKING:
    from subspace.optim.settings import OptimizerSettings

__all__ = ["WideAdamW", "build_adamw"]


def build_adamw(
    model: nn.Module, settings: OptimizerSettings, rate_factor: Callable[[str], float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer over every parameter that requires a gradient; its groups carry parameter names.

    Args:
        model: What is trained.
        settings: `name` is adamw, adamw_8bit or paged_adamw_8bit.
        rate_factor: Factor on the learning rate of the parameter of that name (LoRA+); 1 for all if None.

    Raises:
        ConfigError: E-CFG-020 if an 8-bit optimizer is asked for and bitsandbytes is missing.
    """
    groups = _groups(model, settings, rate_factor or (lambda _: 1.0))
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.epsilon,
    }
    if settings.name != "adamw":
        optimizer: torch.optim.Optimizer = _eight_bit_class(settings.name)(groups, **options)
        return optimizer
    parameters = [parameter for group in groups for _, parameter in group["params"]]
    fused = all(parameter.device.type in FUSED_DEVICES for parameter in parameters)
    if all(parameter.dtype == torch.float32 and not hasattr(parameter, "stored") for parameter in parameters):
        return torch.optim.AdamW(groups, fused=fused, **options)
    return WideAdamW(groups, fused=fused, **options)


def _groups(model: nn.Module, settings: OptimizerSettings, factor: Callable[[str], float]) -> list[dict[str, Any]]:
    rate = settings.learning_rate
    return like_groups(
        (name, parameter, {"lr": rate * factor(name)} | decay_of(name, parameter, settings.weight_decay))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )


def _eight_bit_class(name: str) -> Any:
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise ConfigError(
            "E-CFG-020",
            where="training.optim",
            found=f"{name} needs bitsandbytes, which is not installed",
            action='Install it with: pip install "subspace-ft[quantized]".',
        ) from error
    return {"adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit}[name]


class WideAdamW(torch.optim.Optimizer):
    """AdamW with float32 moments and float32 arithmetic for weights of any float type.

    The update is that of `SubspaceAdamW` without a rank; what is kept, and its names, are those of torch's AdamW, whose
    place it takes for narrow weights. Float32 copies of weight and gradient exist a piece at a time:

        m = b1 m + (1 - b1) g ;  v = b2 v + (1 - b2) g^2
        w = w - lr * (decay * w + m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)),   then rounded to the weight's type

    A weight whose `stored` holds codes is read as float32 and rounded back stochastically; its place among the
    parameters and the number of its updates are the seed.

    State per parameter: `step` (), `exp_avg` and `exp_avg_sq` of the weight's shape, all float32; beside codes the
    integer `num_writes`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        fused: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch types it twice
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        place = 0
        for group in self.param_groups:
            like: dict[tuple[Any, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if hasattr(parameter, "stored") or not parameter.is_contiguous():
                        self._update_alone(parameter, group, place)
                    else:
                        kind = parameter.device, parameter.dtype, parameter.grad.dtype
                        like.setdefault(kind, []).append(parameter)
                place += 1
            for together in like.values():
                self._update_together(together, group)
        return loss

    def _update_alone(self, parameter: Tensor, group: dict[str, Any], place: int) -> None:
        state, seed = self._state_of(parameter), 0
        if hasattr(parameter, "stored"):
            state["num_writes"] = state.get("num_writes", 0) + 1
            seed = derive_seed(state["num_writes"], place)
        state["step"] += 1
        assert parameter.grad is not None
        adamw_update_(parameter, parameter.grad, state, bits=32, seed=seed, step=state["step"], **_numbers(group))

    def _update_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._state_of(parameter) for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        adamw_updates_(parameters, gradients, states, step=steps, **_numbers(group))

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32, memory_format=torch.contiguous_format)
            state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
        return state


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    return {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "fused")}
