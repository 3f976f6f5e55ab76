"""The verdict as files: the ranking as CSV, Markdown and LaTeX, all comparisons, every item, and all of it as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from subspace.report.costs import COSTS
from subspace.report.disagreement import item_means
from subspace.report.score_tables import Scored
from subspace.report.study import Study
from subspace.report.tables import write_csv
from subspace.report.words.phrase import Said, plain, say
from subspace.runs.durable import replace_file
from subspace.statistics.findings import Verdict

__all__ = ["write_verdict_tables"]

_RANKING = (
    "task", "metric", "rank", "arm", "fidelity", "mean", "low", "high", "letters", "seeds", "seed_std", "items",
    "peak_bytes", "seconds", "trained_parameters", "run_flops",
)  # fmt: skip
_COMPARISONS = (
    "task", "metric", "first", "second", "difference", "low", "high", "bootstrap_low", "bootstrap_high", "p",
    "p_adjusted", "decided", "d_z", "rank_biserial", "cliffs_delta", "mcnemar_p", "discordant", "shared_low",
    "shared_high", "p_shared", "decided_shared", "seeds", "items",
)  # fmt: skip
_ITEMS = ("task", "metric", "item", "arm", "mean", "seeds")


def write_verdict_tables(study: Study, out: Path, language: str) -> dict[str, Path]:
    """Write what there is into the folder `out`; return file by what it shows.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    found: dict[str, Path] = {}
    lines = [line for scored in study.scored for line in _lines(study, scored)]
    if lines:
        paths = {"ranking": "ranking.csv", "ranking_md": "ranking.md", "ranking_tex": "ranking.tex"}
        found |= {key: out / name for key, name in paths.items()}
        write_csv(found["ranking"], _RANKING, (line.row for line in lines))
        replace_file(found["ranking_md"], [_markdown(study, lines, language).encode("utf-8")])
        replace_file(found["ranking_tex"], [_latex(study, lines, language).encode("utf-8")])
    if study.verdict is not None:
        found |= {"comparisons": out / "comparisons.csv", "verdict": out / "verdict.json"}
        write_csv(found["comparisons"], _COMPARISONS, _comparisons(study))
        replace_file(found["verdict"], [(json.dumps(_tree(study, study.verdict), indent=1) + "\n").encode("utf-8")])
    if any(scored.items for scored in study.scored):
        found["items"] = out / "items.csv"
        write_csv(found["items"], _ITEMS, _items(study))
    return found


@dataclass(frozen=True)
class _Line:
    """One arm on one task: its row of the CSV, and its cells for people."""

    scored: Scored
    row: Mapping[str, Any]
    cells: tuple[Said, ...]


def _lines(study: Study, scored: Scored) -> Iterator[_Line]:
    task, measure = study.verdict_on(scored), study.measure(scored)
    ranks = {rank.arm: rank for rank in task.ranking} if task else {}
    means = {arm: sum(runs.values()) / len(runs) for arm, runs in scored.scores.items()}
    sign = -1 if scored.higher_is_better else 1
    groups = {group.label: group for group in scored.field.groups}
    order = [*ranks, *sorted(means.keys() - ranks.keys(), key=lambda arm: (sign * means[arm], arm))]
    for place, arm in enumerate(order, start=1):
        rank = ranks.get(arm)
        mean = rank.mean if rank else means[arm]
        low, high = (rank.interval.low, rank.interval.high) if rank else (-math.inf, math.inf)
        known = math.isfinite(low + high)
        costs = [cost.of(groups[arm]) for cost in COSTS]
        row: dict[str, Any] = {
            "task": scored.name, "metric": scored.metric, "rank": place, "arm": arm, "fidelity": groups[arm].fidelity,
            "mean": mean, "low": low if known else None, "high": high if known else None,
            "letters": rank.letters if rank else "", "seeds": len(scored.scores[arm]),
            "seed_std": rank.seed_std if rank else None, "items": task.num_items if task else None,
            "peak_bytes": costs[0], "seconds": costs[1], "trained_parameters": costs[2], "run_flops": costs[3],
        }  # fmt: skip
        told = ["–" if value is None else cost.form(value) for value, cost in zip(costs, COSTS, strict=True)]
        interval: Said = measure.span(low, high) if known else "–"
        fidelity = [row["fidelity"] or "–"] if _has_fidelity(scored) else []
        yield _Line(scored, row, (arm, *fidelity, measure.value(mean), interval, row["letters"] or "–", *told[:3]))


def _has_fidelity(scored: Scored) -> bool:
    return any(group.fidelity for group in scored.field.groups)


def _heads(study: Study, scored: Scored) -> tuple[Said, ...]:
    fidelity = [say("fidelity")] if _has_fidelity(scored) else []
    costs = [say(f"cost_{cost.key}") for cost in COSTS[:3]]
    return (say("arm"), *fidelity, study.measure(scored).name, say("pair_interval"), say("letters"), *costs)


def _parts(study: Study, lines: Sequence[_Line]) -> Iterator[tuple[Scored, list[_Line]]]:
    for scored in study.scored:
        own = [line for line in lines if line.scored is scored]
        if own:
            yield scored, own


def _markdown(study: Study, lines: Sequence[_Line], language: str) -> str:
    parts = []
    for scored, own in _parts(study, lines):
        heads = [_in_markdown(plain(head, language)) for head in _heads(study, scored)]
        rows = [[_in_markdown(plain(cell, language)) for cell in line.cells] for line in own]
        names = 2 if _has_fidelity(scored) else 1
        ruled = [heads, [*["---"] * names, *["---:"] * (len(heads) - names)], *rows]
        parts.append(f"**{_in_markdown(scored.name)}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in ruled))
    return "\n".join(parts)


def _in_markdown(text: str) -> str:
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def _latex(study: Study, lines: Sequence[_Line], language: str) -> str:
    """Return a table for the package booktabs; scores that share the lead are bold."""
    parts = []
    for scored, own in _parts(study, lines):
        heads = [_in_latex(plain(head, language)) for head in _heads(study, scored)]
        names = 2 if _has_fidelity(scored) else 1
        best = str(own[0].row["letters"])
        body = []
        for line in own:
            cells = [_in_latex(plain(cell, language)) for cell in line.cells]
            if best and set(best) & set(str(line.row["letters"])):
                cells[names] = f"\\textbf{{{cells[names]}}}"
            body.append(" & ".join(cells) + " \\\\\n")
        parts.append(
            f"% {_in_latex(scored.name)}\n\\begin{{tabular}}{{{'l' * names}{'r' * (len(heads) - names)}}}\n"
            f"\\toprule\n{' & '.join(heads)} \\\\\n"
            f"\\midrule\n{''.join(body)}\\bottomrule\n\\end{{tabular}}\n"
        )
    return "\n".join(parts)


_TEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$", "±": r"$\pm$",
}  # fmt: skip


def _in_latex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in " ".join(text.split()))


def _tree(study: Study, verdict: Verdict) -> Any:
    """Return the verdict as JSON, with the fidelity of every arm whose method knows more than one."""
    fidelity = {group.label: group.fidelity for group in study.arms.groups if group.fidelity}
    return _finite({**asdict(verdict), "fidelity": fidelity})


def _comparisons(study: Study) -> Iterator[dict[str, Any]]:
    assert study.verdict is not None
    for task in study.verdict.tasks:
        for found in task.comparisons:
            yield {
                "task": task.task, "metric": task.metric, "first": found.first, "second": found.second,
                "difference": found.interval.estimate, "low": _known(found.interval.low),
                "high": _known(found.interval.high), "bootstrap_low": _known(found.bootstrap.low),
                "bootstrap_high": _known(found.bootstrap.high), "p": found.p, "p_adjusted": found.p_adjusted,
                "decided": found.decided, "d_z": found.d_z, "rank_biserial": found.rank_biserial,
                "cliffs_delta": found.cliffs_delta, "mcnemar_p": found.mcnemar_p, "discordant": found.discordant,
                "shared_low": found.shared and _known(found.shared.low),
                "shared_high": found.shared and _known(found.shared.high), "p_shared": found.p_shared,
                "decided_shared": found.decided_shared, "seeds": found.num_seeds, "items": found.num_items,
            }  # fmt: skip


def _items(study: Study) -> Iterator[dict[str, Any]]:
    for scored in study.scored:
        for item, arms in item_means(scored).items():
            for arm, (mean, seeds) in arms.items():
                row = {"task": scored.name, "metric": scored.metric, "item": item.removeprefix("#"), "arm": arm}
                yield {**row, "mean": mean, "seeds": seeds}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite(tree: Any) -> Any:
    """Return a tree that is JSON: what is infinite or NaN is null."""
    if isinstance(tree, float):
        return _known(tree)
    if isinstance(tree, Mapping):
        return {str(key): _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return tree if isinstance(tree, str | int | bool | None) else str(tree)
