"""What a comparison rests on and what it would take to tell more, in a sentence each."""

from __future__ import annotations

from subspace.report.measures import Measure
from subspace.report.words.phrase import Said, say
from subspace.statistics.findings import Power

__all__ = ["amounts", "power_line"]


def amounts(seeds: int, items: int) -> Said:
    """Return how many seeds and items a number rests on."""
    counted = say("seeds_one" if seeds == 1 else "seeds_many", count=seeds)
    return counted if items < 2 else say("seeds_and_items", seeds=counted, items=f"{items:,}")


def power_line(power: Power, measure: Measure) -> Said:
    """Return what these seeds and items can tell, and what it would take to tell one point."""
    if power.detectable is None:
        return say("power_unknown")
    alone = power.detectable_alone or power.detectable
    # of shares no two differ by more than all
    key = "power_detectable"
    if measure.share and power.detectable >= 1.0:
        key = "power_alone" if alone < 1.0 else "power_none"
    found = say(
        key,
        data=amounts(power.num_seeds, power.num_items),
        difference=measure.difference(power.detectable),
        target=f"{100 * power.target:.0f} %",
        alone=measure.difference(alone),
    )
    point = say("one_point") if measure.share else say("one_percent", value=measure.bare(power.one_point))
    seeds, items = power.seeds_needed, power.items_needed if power.num_items > 1 else None
    if power.detectable <= power.one_point:
        return found
    if seeds is None and items is None:
        return found if power.num_items < 2 else say("power_then", first=found, then=say("power_never", point=point))
    key = "power_both" if seeds and items else "power_seeds" if seeds else "power_items"
    then = say(key, point=point, seeds=seeds or 0, items=f"{items or 0:,}")
    return say("power_then", first=found, then=then)
