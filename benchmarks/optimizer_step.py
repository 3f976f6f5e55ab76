"""What a step and a refresh of the subspace optimizers cost, beside the floor and beside the official packages.

The floor of GaLore is measured in the same process: for every projected matrix the two projection products into
preallocated buffers (`mm(out=)`, `addmm_`), and torch's fused AdamW on the low-rank part and on what is not projected.
All arms take a step in turn, in an order that changes from repeat to repeat; a figure is the median of the repeats, a
ratio the median of the paired ratios. A refresh is amortised over 200 steps. One layer of the model in float32, unless
said otherwise; on a GPU one layer is a few microseconds of work and a few launches, so that all layers say more there.

    OMP_NUM_THREADS=1 python benchmarks/optimizer_step.py --shapes qwen2-0.5b --rank 128
    python benchmarks/optimizer_step.py --shapes qwen2-0.5b --rank 128 --device cuda --layers 24 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subspace.linalg.norms import wide_norm
from subspace.optim import Apollo, FiraAdamW, Flora, GaLoreAdamW, channelwise, residual, slots, together
from subspace.optim.slots import bundle_size
from subspace.projection.basis import find_bases
from subspace.projection.geometry import Basis, Geometry

SHAPES = {
    "qwen2-0.5b": [(896, 896), (128, 896), (128, 896), (896, 896), (4864, 896), (4864, 896), (896, 4864)],
    "llama-1b": [(2048, 2048), (512, 2048), (512, 2048), (2048, 2048), (8192, 2048), (8192, 2048), (2048, 8192)],
}
INTERVAL = 200
MOST_EXACT = 50
"""Gradients up to which exact bases are timed too."""
SHRUNK = 28
"""Times that matrices are smaller where the host alone is timed; a divisor of what there is."""
FAR = 10**9
"""An interval after which no refresh falls into an ordinary step."""


def gradient(m: int, n: int, seed: int) -> Tensor:
    """Return a gradient whose singular values fall with their number, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(m, n)
    left = torch.randn(m, rank, generator=generator)
    right = torch.randn(rank, n, generator=generator) / torch.arange(1, rank + 1)[:, None] ** 0.7
    return left @ right * 1e-3


def projected(gradient: Tensor, rank: int) -> Geometry | None:
    """Return how GaLore projects a gradient of this shape; None if it does not."""
    return GaLoreAdamW.geometry(tuple(gradient.shape), rank, GaLoreAdamW.built_in)


class Arm:
    """An optimizer over copies of the layer's weights, with gradients that stay."""

    def __init__(self, gradients: list[Tensor], make: Callable[[list[nn.Parameter]], Any]) -> None:
        self.weights = [nn.Parameter(torch.randn_like(value) * 0.02) for value in gradients]
        self.gradients = gradients
        self.optimizer = make(self.weights)

    def step(self) -> float:
        for weight, value in zip(self.weights, self.gradients, strict=True):
            weight.grad = value
        return seconds(self.optimizer.step)


class Floor:
    """The products and the fused AdamW that no GaLore can do without, on memory that is there."""

    def __init__(self, gradients: list[Tensor], rank: int) -> None:
        self.work: list[tuple[str, Tensor, Tensor, Tensor, Tensor]] = []
        low: list[nn.Parameter] = []
        for value in gradients:
            weight = torch.randn_like(value) * 0.02
            geometry = projected(value, rank)
            if geometry is None:
                plain = nn.Parameter(weight)
                plain.grad = value
                low.append(plain)
                continue
            basis = torch.linalg.qr(torch.randn(min(value.shape), rank, device=value.device)).Q.contiguous().to(value)
            part = nn.Parameter(torch.zeros(geometry.low_shape).to(value))
            part.grad = torch.zeros_like(part)
            low.append(part)
            self.work.append((geometry.side, weight, value, basis, part))
        self.adamw = torch.optim.AdamW(low, lr=1e-3, fused=True)

    def step(self) -> float:
        return seconds(self._step)

    @torch.no_grad()
    def _step(self) -> None:
        for side, _, value, basis, part in self.work:
            first, second = (basis.mT, value) if side == "left" else (value, basis)
            torch.mm(first, second, out=part.grad)
        self.adamw.step()
        for side, weight, _, basis, part in self.work:
            first, second = (basis, part) if side == "left" else (part, basis.mT)
            weight.addmm_(first, second, alpha=-0.25)


def seconds(call: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def arms(gradients: list[Tensor], rank: int, with_peers: bool) -> dict[str, Any]:
    """Return the arms by name; packages that are not installed are left out."""
    found: dict[str, Any] = {"floor": Floor(gradients, rank)}
    ours: dict[str, Callable[..., Any]] = {"galore": GaLoreAdamW, "fira": FiraAdamW, "apollo": Apollo}
    for name, kind in ours.items():
        options = {} if name == "apollo" else {"basis": "randomized"}
        found[name] = Arm(gradients, lambda p, k=kind, o=options: k(p, lr=1e-3, rank=rank, refresh_interval=FAR, **o))
    found["flora"] = Arm(gradients, lambda p: Flora(p, lr=1e-3, rank=rank, refresh_interval=FAR))
    found["adamw fused"] = Arm(gradients, lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True))
    for name, make in peers(rank).items() if with_peers else ():
        found[name] = Arm(gradients, make)
    return found


def peers(rank: int) -> dict[str, Callable[[list[nn.Parameter]], Any]]:
    """Return how to make the official optimizers that are installed."""
    quiet = {"lr": 1e-3, "no_deprecation_warning": True}
    common = {"rank": rank, "update_proj_gap": FAR, "proj_type": "std"}
    found: dict[str, Callable[[list[nn.Parameter]], Any]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from galore_torch import GaLoreAdamW as Official

            found["galore-torch"] = lambda p: Official([{"params": p, "scale": 0.25, **common}], **quiet)
        except ImportError:
            pass
        try:
            from fira import FiraAdamW as OfficialFira

            found["fira (package)"] = lambda p: OfficialFira([{"params": p, "alpha": 0.25, **common}], **quiet)
        except ImportError:
            pass
        try:
            from apollo_torch import APOLLOAdamW

            apollo = {"scale": 1.0, "proj": "random", "scale_type": "channel", **common}
            found["apollo-torch"] = lambda p: APOLLOAdamW([{"params": p, **apollo}], **quiet)
        except ImportError:
            pass
    return found


def refreshes(gradients: list[Tensor], rank: int, repeats: int) -> dict[str, float]:
    """Return the seconds that finding the bases of all matrices takes, by how they are found."""
    by_geometry: dict[Geometry, list[Tensor]] = {}
    for value in gradients:
        geometry = projected(value, rank)
        if geometry is not None:
            by_geometry.setdefault(geometry, []).append(value)
    taken: dict[str, list[float]] = {}
    before = {
        geometry: find_bases(values, geometry, "gram", [None] * len(values), range(len(values)))
        for geometry, values in by_geometry.items()
    }

    def find(how: Basis, seed: int) -> None:
        for geometry, values in by_geometry.items():
            old = before[geometry] if how == "warm" else [None] * len(values)
            for first in range(0, len(values), bundle_size(geometry, values[0].device.type)):
                part = slice(first, first + bundle_size(geometry, values[0].device.type))
                find_bases(values[part], geometry, how, old[part], [seed] * len(values[part]))

    hows: tuple[Basis, ...] = ("svd", "gram", "randomized", "warm")
    for repeat in range(repeats):
        for how in hows:
            if how in ("randomized", "warm") or (len(gradients) <= MOST_EXACT and (how == "gram" or repeat < 2)):
                taken.setdefault(how, []).append(seconds(lambda how=how, seed=repeat: find(how, seed)))
    return {how: statistics.median(values) for how, values in taken.items()}


def measure(gradients: list[Tensor], rank: int, repeats: int, with_peers: bool) -> dict[str, Any]:
    """Return medians and paired ratios."""
    every = arms(gradients, rank, with_peers)
    first = {name: arm.step() for name, arm in every.items()}  # allocates, and refreshes
    for arm in every.values():
        arm.step()
    taken: dict[str, list[float]] = {name: [] for name in every}
    order = list(every)
    for repeat in range(repeats):
        random.Random(repeat).shuffle(order)
        for name in order:
            taken[name].append(every[name].step())
    steps = {name: statistics.median(values) for name, values in taken.items()}
    bases = refreshes(gradients, rank, max(3, repeats // 4))
    amortised = {how: value / INTERVAL for how, value in bases.items()}
    # a peer's refresh is inside its first step
    peer = {name: max(first[name] - steps[name], 0.0) / INTERVAL for name in steps if name in peers(rank)}
    result: dict[str, Any] = {
        "step_seconds": {name: round(value, 6) for name, value in steps.items()},
        "refresh_seconds": {how: round(value, 6) for how, value in bases.items()},
        "peer_refresh_seconds": {name: round(value * INTERVAL, 6) for name, value in peer.items()},
    }
    if "svd" in bases:
        result["refresh_speedup_over_svd"] = {how: round(bases["svd"] / value, 2) for how, value in bases.items()}
    ratios = {}
    for ours, others in {
        "galore": ("floor", "galore-torch", "adamw fused"),
        "fira": ("floor", "fira (package)"),
        "apollo": ("apollo-torch", "floor"),
    }.items():
        own = amortised["warm"] if ours != "apollo" else 0.0
        for other in others:
            if other in taken:
                pairs = [(a + own) / (b + peer.get(other, 0.0)) for a, b in zip(taken[ours], taken[other], strict=True)]
                low, *_, high = statistics.quantiles(pairs, n=10)
                ratios[f"{ours} / {other}"] = [round(value, 3) for value in (statistics.median(pairs), low, high)]
    result["ratios_amortised_median_p10_p90"] = ratios
    return result


def time_the_host_alone() -> None:
    """Send tiny matrices the way of devices where launches cost, in bundles as large ones would be on a GPU."""
    together.LAUNCHING_DEVICES.add("cpu")
    slots._BUNDLE_ELEMENTS.clear()
    for limit in ("_SMALL_ELEMENTS", "_STACKED_ELEMENTS", "_LARGE_ELEMENTS", "_DEFAULT_BUNDLE_ELEMENTS"):
        setattr(slots, limit, getattr(slots, limit) // SHRUNK**2)
    for module in (residual, channelwise):
        module.channel_norms = lambda matrix, axis: wide_norm(matrix, axis, keepdim=True)
    for name, shapes in SHAPES.items():
        SHAPES[name] = [(m // SHRUNK, n // SHRUNK) for m, n in shapes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--rank", type=int, nargs="*", default=[128, 256])
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tf32", action="store_true", help="float32 products may round their factors to TF32")
    parser.add_argument("--host", action="store_true", help="time the host alone, on the CPU")
    parser.add_argument("--no-peers", action="store_true", help="leave the official packages out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    if args.host:
        time_the_host_alone()
    results = {}
    for name in SHAPES if args.shapes == "all" else [args.shapes]:
        layer = [gradient(m, n, seed) for seed, (m, n) in enumerate(SHAPES[name])]
        # other layers' gradients are rotated copies: as many numbers, other memory
        layer = [value.to(args.device, getattr(torch, args.dtype)) for value in layer]
        every = [value.roll(shift, 0) for shift in range(args.layers) for value in layer]
        for rank in args.rank:
            used = max(1, rank // SHRUNK) if args.host else rank
            results[f"{name} rank {rank}"] = measure(every, used, args.repeats, not args.no_peers)
    packages = {}
    for name in ("torch", "galore-torch", "fira", "apollo-torch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "cpu"
    report = {
        "date": date.today().isoformat(),
        "device": device,
        "threads": torch.get_num_threads(),
        "layers": args.layers,
        "host_alone": args.host,
        "dtype": args.dtype,
        "float32_products": "TF32" if args.tf32 else "IEEE",
        "packages": packages,
        "results": results,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
