"""Pieces that sections are made of: a section with its heading, a table that can be sorted, choices between charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from subspace.report.words.phrase import Said, both

__all__ = ["Value", "choices", "folded", "section", "table"]

MOST_ROWS = 300
"""Rows of a table that are shown; the files beside the page hold all."""


def section(anchor: str, title: Said, body: str, note: Sequence[Said] = ()) -> str:
    """Return a section; nothing without a body."""
    if not body:
        return ""
    under = f'<p class="note">{both(*note)}</p>' if note else ""
    return (
        f'<section id="{anchor}"><div class="side"><h2>{both(title)}</h2>{under}</div>'
        f'<div class="body">{body}</div></section>'
    )


@dataclass(frozen=True)
class Value:
    """One cell: its HTML, and what it is sorted by."""

    shown: str
    key: float | str | None = None

    def cell(self) -> str:
        """Return the cell."""
        number = isinstance(self.key, int | float)
        kind = ' class="n"' if number or self.key is None else ""
        return f'<td{kind} data-key="{escape(str("" if self.key is None else self.key))}">{self.shown}</td>'


def table(heads: Sequence[Said], rows: Sequence[tuple[int | None, Sequence[Value]]], name: str = "") -> str:
    """Return a table whose heads sort it; each row with the index of its arm, if it is one's."""
    top = "".join(
        f'<th scope="col"{"" if number else " class=first"}><button type="button">{both(head)}</button></th>'
        for number, head in enumerate(heads)
    )
    body = "".join(
        f"<tr{'' if arm is None else f' data-arm={arm}'}>{''.join(value.cell() for value in values)}</tr>"
        for arm, values in rows[:MOST_ROWS]
    )
    return (
        f'<div class="scroll"><table class="sortable {name}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def folded(title: Said, body: str) -> str:
    """Return something that opens on a click."""
    return f'<details><summary>{both(title)}</summary><div class="inside">{body}</div></details>'


def choices(options: Sequence[tuple[Said, str]], *, named: bool = False) -> str:
    """Return bodies of which one is shown; all of them where scripts do not run.

    Args:
        options: Titles and bodies, at least one.
        named: The title of a single one is told, too.
    """
    if len(options) == 1:
        return (f'<p class="task">{both(options[0][0])}</p>' if named else "") + options[0][1]
    buttons = "".join(
        f'<button type="button" data-choice="{number}" aria-pressed="{str(number == 0).lower()}">{both(title)}</button>'
        for number, (title, _) in enumerate(options)
    )
    bodies = "".join(f'<div data-chosen="{number}">{body}</div>' for number, (_, body) in enumerate(options))
    return f'<div class="choice"><div class="tabs">{buttons}</div>{bodies}</div>'
