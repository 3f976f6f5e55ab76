"""The section on items: how often arms agree, and the items that split them most, with what each arm wrote."""

from __future__ import annotations

from html import escape

from subspace.report.charts.marks import swatch
from subspace.report.disagreement import Disagreement, Split, disagreement
from subspace.report.page.parts import Value, folded, section, table
from subspace.report.score_tables import Scored
from subspace.report.study import Study
from subspace.report.words.phrase import Said, both, dated, say

__all__ = ["items"]

_SHOWN = 600
"""Signs of a prompt or output that are shown."""


def items(study: Study, language: str) -> str:
    """Return where the arms of every task differ item by item."""
    parts = []
    for scored in study.scored:
        found = disagreement(scored)
        if found is None or not found.splits:
            continue
        head = f'<p class="task">{both(scored.name)}</p>' if len(study.scored) > 1 else ""
        counted = _counts(study, found, language) if found.right is not None else ""
        examples = "".join(_example(study, scored, split) for split in found.splits)
        parts.append(f"{head}{counted}<h3>{both(say('items_most'))}</h3>{examples}")
    return section("items", say("items"), "".join(parts), [say("items_note")])


def _counts(study: Study, found: Disagreement, language: str) -> str:
    assert found.right is not None
    assert found.wrong is not None
    split = found.items - found.right - found.wrong
    pieces = "".join(
        f'<i class="{look}" style="flex-grow:{count}"'
        f"{dated('data-tip', say(f'items_{look}', count=count), language)}></i>"
        for look, count in (("right", found.right), ("split", split), ("wrong", found.wrong))
        if count
    )
    told = "".join(
        f'<span><i class="{look}"></i>{both(say(f"items_{look}", count=count))}</span>'
        for look, count in (("right", found.right), ("split", split), ("wrong", found.wrong))
    )
    heads: list[Said] = [say("arm"), say("items_alone"), say("items_missed")]
    rows = [
        (
            group.index,
            [
                Value(f"{swatch(group)}{escape(group.label)}", group.label),
                Value(str(found.alone[group.label]), found.alone[group.label]),
                Value(str(found.missed[group.label]), found.missed[group.label]),
            ],
        )
        for group in study.arms.groups
        if group.label in found.alone
    ]
    return (
        f'<div class="stack" role="img"{dated("aria-label", say("items"), language)}>{pieces}</div>'
        f'<div class="looks">{told}</div>{table(heads, rows, "narrow")}'
    )


def _example(study: Study, scored: Scored, split: Split) -> str:
    measure = study.measure(scored)
    rows = []
    binary = scored.table is not None and scored.table.binary
    for answer in split.answers:
        look = ("right" if answer.value > 0.5 else "wrong") if binary else "plain"
        told = f"{100 * answer.value:.0f} %" if binary else measure.value(answer.value)
        output = f"<code>{escape(_cut(answer.output))}</code>" if answer.output else ""
        rows.append(
            f'<div class="answer {look}"><b>{swatch(study.group(answer.arm))}{escape(answer.arm)}</b>'
            f"<span>{escape(told)}</span>{output}</div>"
        )
    asked = (
        f"<dt>{both(say('items_prompt'))}</dt><dd><code>{escape(_cut(split.prompt))}</code></dd>"
        if split.prompt
        else ""
    )
    wanted = (
        f"<dt>{both(say('items_reference'))}</dt><dd><code>{escape(_cut(split.reference))}</code></dd>"
        if split.reference
        else ""
    )
    best, worst = split.answers[0], split.answers[-1]
    title = say(
        "items_example",
        item=split.item,
        right=sum(answer.value > 0.5 for answer in split.answers) if binary else best.arm,
        count=len(split.answers) if binary else worst.arm,
    )
    shown = say("items_example" if binary else "items_example_loss", **title.fields)
    teaser = f' <span class="teaser">{escape(_cut(split.prompt, 90))}</span>' if split.prompt else ""
    body = f'<dl class="asked">{asked}{wanted}</dl><div class="answers">{"".join(rows)}</div>'
    return folded(shown, body).replace("</summary>", f"{teaser}</summary>", 1)


def _cut(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
