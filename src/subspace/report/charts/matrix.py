"""Every arm against every other: the difference of their scores, and whether it is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from subspace.report.charts.marks import swatch
from subspace.report.groups import Group
from subspace.report.words.phrase import Said, both, dated, say

__all__ = ["Cell", "matrix"]

_NUMBERS_UP_TO = 12


@dataclass(frozen=True)
class Cell:
    """The arm of the row less that of the column.

    Attributes:
        text: The difference.
        look: "better", "worse" or "open", as seen from the row.
        tip: What is said of it on hovering.
    """

    text: str
    look: str
    tip: Said


def matrix(groups: Sequence[Group], cells: Mapping[tuple[str, str], Cell], language: str) -> str:
    """Return the matrix; arms in the order given, rows and columns alike."""
    numbers = len(groups) <= _NUMBERS_UP_TO
    heads = "".join(f'<th scope="col"><span>{escape(group.label)}</span></th>' for group in groups)
    body = []
    for row in groups:
        found = []
        for column in groups:
            cell = cells.get((row.label, column.label))
            if cell is None:
                found.append(f'<td class="{"same" if row is column else "none"}"></td>')
            else:
                shown = escape(cell.text) if numbers else ""
                found.append(f'<td class="{cell.look}"{dated("data-tip", cell.tip, language)}>{shown}</td>')
        body.append(f'<tr><th scope="row">{swatch(row)}{escape(row.label)}</th>{"".join(found)}</tr>')
    legend = "".join(
        f'<span><i class="{look}"></i>{both(say(f"matrix_{look}"))}</span>' for look in ("better", "worse", "open")
    )
    return (
        f'<div class="scroll"><table class="matrix{"" if numbers else " fine"}">'
        f"<thead><tr><td></td>{heads}</tr></thead>"
        f'<tbody>{"".join(body)}</tbody></table></div><div class="looks">{legend}</div>'
    )
