"""What watches refreshes is a hook of its own: it logs, keeps first bases, and is absent where nobody asked for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from workbench import Bench, attached

from subspace.core.errors import CheckpointError
from subspace.methods.base import Hook
from subspace.methods.refresh_watch import RefreshWatch

OPTIONS = {"rank": 4, "refresh_interval": 2}


def stepped(num_steps: int, **options: Any) -> tuple[Bench, list[dict[str, Any]]]:
    """Do steps; return the bench and the events of the first hook."""
    bench = attached("galore", **OPTIONS, **options)
    optimizer, events = bench.optimizer(), []
    for hook in bench.method.hooks():
        _listen(hook, events)
    for number in range(1, num_steps + 1):
        bench.step(optimizer, number)
    return bench, events


def _listen(hook: Hook, events: list[Any]) -> None:
    after = hook.after_step
    hook.after_step = lambda model, step: events.append(after(model, step))  # type: ignore[method-assign]


def test_events_come_at_refreshes_and_first_bases_are_kept_as_planned() -> None:
    bench, events = stepped(3)
    assert [event is not None for event in events] == [True, False, True]
    assert len([name for name, figures in events[2]["weights"].items() if figures.get("drift", 0.0) > 0]) == 3
    state = bench.method.state(bench.model)
    planned = bench.method.kept_specs(bench.inventory, bench.placements)
    assert {name: tuple(basis.shape) for name, basis in state.items()} == {spec.name: spec.shape for spec in planned}
    assert len(state) == 3


def test_first_bases_come_back_before_and_after_the_optimizer_is_made() -> None:
    state = stepped(1)[0].method.state(None)  # type: ignore[arg-type]
    for optimizer_first in (False, True):
        bench = attached("galore", **OPTIONS)
        if optimizer_first:
            bench.optimizer()
        bench.method.load_state(bench.model, state)
        if not optimizer_first:
            bench.optimizer()
        found = bench.method.state(bench.model)
        assert all(torch.equal(found[name], basis) for name, basis in state.items())


def test_without_a_microscope_there_is_no_hook_and_nothing_to_take_back() -> None:
    bench, events = stepped(1, microscope=False)
    assert (bench.method.hooks(), events) == ((), [])
    assert bench.method.kept_specs(bench.inventory, bench.placements) == ()
    with pytest.raises(CheckpointError, match="E-CKP-005"):
        bench.method.load_state(bench.model, {"first_basis:x": torch.zeros(1)})


@pytest.mark.parametrize("key", ["first_basis:unknown", "A0"])
def test_foreign_state_is_refused(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"E-CKP-005 .*{key}"):
        RefreshWatch().load_state({key: torch.zeros(1)})
