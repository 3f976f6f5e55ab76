"""Loss curves, and what refreshes did to the subspaces."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.report.charts.curves import line_chart
from subspace.report.charts.energy import heat_map
from subspace.report.charts.marks import keys
from subspace.report.groups import Group
from subspace.report.heat import energy_maps, energy_range
from subspace.report.lines import loss_charts, subspace_charts
from subspace.report.page.parts import choices, section
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say

__all__ = ["curves", "drawn_groups", "microscope"]

_SMALL_PIXELS = 150
"""Height of one of many small charts."""
_MOST_LINES = 40
"""Arms whose lines are drawn; of more, the best."""


def drawn_groups(study: Study, groups: Sequence[Group]) -> list[Group]:
    """Return the arms whose lines are drawn: all, or the best of many."""
    if len(groups) <= _MOST_LINES:
        return list(groups)
    place: dict[str, int] = {}
    for scored in study.scored:
        sign = -1 if scored.higher_is_better else 1
        order = sorted(scored.scores, key=lambda arm: sign * sum(scored.scores[arm].values()) / len(scored.scores[arm]))
        for number, arm in enumerate(order):
            place[arm] = min(number, place.get(arm, number))
    kept = sorted(groups, key=lambda group: place.get(group.label, len(groups) + group.index))[:_MOST_LINES]
    return sorted(kept, key=lambda group: group.index)


def curves(study: Study, language: str) -> str:
    """Return training and validation loss of every field."""
    bodies: list[tuple[Said, str]] = []
    shown: dict[int, Group] = {}
    left_out = False
    for field in study.arms.fields:
        groups = drawn_groups(study, field.groups)
        left_out = left_out or len(groups) < len(field.groups)
        charts = loss_charts(groups)
        if charts:
            drawn = "".join(line_chart(chart, language) for chart in charts)
            bodies.append((field.name, f'<div class="pair">{drawn}</div>'))
            shown |= {line.group.index: line.group for chart in charts for line in chart.lines}
    if not bodies:
        return ""
    several, legend = len(study.arms.fields) > 1, keys(shown[index] for index in sorted(shown))
    note: list[Said] = [say("curves_note")]
    if left_out:
        note.append(say("curves_left_out", count=_MOST_LINES))
    return section("curves", say("curves"), legend + choices(bodies, named=several), note)


def microscope(study: Study, language: str) -> str:
    """Return what refreshes did to the subspaces of every field; nothing if no run has logged any."""
    bodies: list[tuple[Said, str]] = []
    shown: dict[int, Group] = {}
    for field in study.arms.fields:
        groups = drawn_groups(study, [group for group in field.groups if any(run.refreshes for run in group.records)])
        charts = subspace_charts(groups)
        if charts:
            drawn = "".join(line_chart(chart, language, _SMALL_PIXELS) for chart in charts)
            bodies.append((field.name, f'<div class="pair small">{drawn}</div>{_heat(groups)}'))
            shown |= {line.group.index: line.group for chart in charts for line in chart.lines}
    if not bodies:
        return ""
    body = keys(shown[index] for index in sorted(shown)) + choices(bodies, named=len(study.arms.fields) > 1)
    return section("subspace", say("subspace"), body, [say("subspace_note")])


def _heat(groups: Sequence[Group]) -> str:
    maps = energy_maps(groups)[:12]
    if not maps:
        return ""
    low, high = energy_range(maps)
    drawn = "".join(heat_map(found, low, high) for found in maps)
    ends = [f"{100 * value:.1f} %" for value in (low, high)]
    return (
        f'<h3>{both(say("heat"))}</h3><p class="note">{both(say("heat_note"))}</p>'
        f'<div class="legend">{ends[0]}<i></i>{ends[1]}</div><div class="pair">{drawn}</div>'
    )
