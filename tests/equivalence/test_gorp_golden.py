"""GORP's projected AdamW is GaLore's with a protected subspace taken out of the projected gradient.

The recorded trajectories lie beside the repository; `adapters_continual.md` there, section 7.2, says what was recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from equivalence_runs import SIDES
from safetensors import safe_open
from torch import Tensor, nn

from subspace.optim import GaLoreAdamW
from subspace.optim.slots import Bundle

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "gorp_optimizer.safetensors"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared/golden/gorp_optimizer.safetensors")
TOLERANCE = 1e-6
CASES = [f"gorp.{index}" for index in range(9)]


class Protecting(GaLoreAdamW):  # type: ignore[misc,valid-type]
    """Takes S S^T R out of every projected gradient; the basis is still that of the whole gradient."""

    protected: Tensor | None = None

    def low_gradients(self, bundle: Bundle) -> list[Tensor]:
        lows: list[Tensor] = super().low_gradients(bundle)
        if self.protected is not None:
            for low in lows:
                low.sub_(self.protected @ (self.protected.mT @ low))
        return lows


def recorded(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(str(GOLDEN), framework="pt") as stream:
        names = [name for name in stream.keys() if name.startswith(f"{case}.")]  # noqa: SIM118
        return json.loads(stream.metadata()[case]), {n.removeprefix(f"{case}."): stream.get_tensor(n) for n in names}


@pytest.mark.parametrize("case", CASES)
def test_trajectory(case: str) -> None:
    settings, tensors = recorded(case)
    weight = nn.Parameter(tensors["w0"].clone())
    group: dict[str, Any] = {"params": [weight]}
    if settings["rank"]:
        group |= {"rank": settings["rank"], "refresh_interval": settings["refresh_interval"]}
        group |= {"scale": settings["scale"], "side": SIDES[settings["proj_type"]]}
    numbers = {key: settings[key] for key in ("lr", "eps", "weight_decay")}
    optimizer = Protecting([group], betas=tuple(settings["betas"]), fidelity="reference", **numbers)
    protected = tensors.get("protected")
    for gradient in tensors["grads"]:
        weight.grad = gradient.clone()
        if protected is not None and not settings["rank"]:
            weight.grad -= protected @ (protected.mT @ weight.grad)
        elif protected is not None:
            optimizer.protected = protected
        optimizer.step()
    largest = float((weight.detach() - tensors["w"]).abs().max())
    assert largest <= TOLERANCE, largest
    assert not torch.equal(weight.detach(), tensors["w0"])
