"""How much the learning rate mattered: every search of a bench, and what all of them cost."""

from __future__ import annotations

from subspace.core.units import format_seconds
from subspace.report.bench import Search
from subspace.report.charts.search import search_chart, value_scale
from subspace.report.groups import Group
from subspace.report.measures import Measure
from subspace.report.page.parts import section
from subspace.report.series import pick_scale
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, say

__all__ = ["search_fields", "sensitivity"]


def search_fields(study: Study) -> dict[tuple[str, str], list[tuple[Group, Search]]]:
    """Return the searches of arms that are shown, by task and model."""
    groups = {group.label: group for group in study.arms.groups}
    found: dict[tuple[str, str], list[tuple[Group, Search]]] = {}
    for bench in study.benches:
        for search in bench.searches:
            group = groups.get(bench.labels.get(search.arm, search.arm))
            if group is not None and any(trial.score is not None for trial in search.trials):
                found.setdefault((search.task, search.model), []).append((group, search))
    return found


def sensitivity(study: Study, language: str) -> str:
    """Return a chart for every search, those of one task on one axis."""
    parts = []
    fields = search_fields(study)
    for (task, _), searches in fields.items():
        trials = [trial for _, search in searches for trial in search.trials]
        scores = [trial.score for trial in trials if trial.score is not None]
        measure = Measure.of(searches[0][1].metric, scores)
        across, up = value_scale([trial.value for trial in trials if trial.value > 0]), pick_scale(scores)
        form = (lambda value: f"{100 * value:.3g} %") if measure.share else "{:.4g}".format
        drawn = "".join(search_chart(group, search, across, up, form, language) for group, search in searches)
        head = say("search_head", task=task or "–", metric=measure.name, setting=searches[0][1].key)
        parts.append(f'<p class="task">{both(head)}</p><div class="pair small tiny">{drawn}</div>')
    if not parts:
        return ""
    every = [search for searches in fields.values() for _, search in searches]
    seconds = [search.seconds for search in every if search.seconds is not None]
    note: list[Said] = [say("search_note")]
    if seconds:
        note.append(
            say("search_cost", time=format_seconds(sum(seconds)), count=sum(len(search.trials) for search in every))
        )
    return section("sensitivity", say("sensitivity"), "".join(parts), note)
