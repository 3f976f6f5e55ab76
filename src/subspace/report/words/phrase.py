"""Sentences before they are said: a key of the tables of words and what fills its places, told in any language.

One page holds all its words in every language; a switch shows one of them. What is the same in all stands once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from subspace.report.words.strings import STRINGS, TAGS

__all__ = ["Listed", "Phrase", "Said", "Strong", "both", "dated", "listed", "plain", "say"]


@dataclass(frozen=True)
class Phrase:
    """A text of the tables.

    Attributes:
        key: Its key.
        fields: What its {places} are filled with: text, numbers, or further phrases.
    """

    key: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strong:
    """A part of a sentence that stands out on the page."""

    part: Said


@dataclass(frozen=True)
class Listed:
    """Several things in one sentence: "a, b and c"."""

    parts: tuple[Said, ...]


Said = Phrase | Strong | Listed | str | int | float


def say(key: str, **fields: Any) -> Phrase:
    """Return the sentence `key` with its places filled."""
    return Phrase(key, fields)


def listed(parts: Sequence[Said], most: int = 12) -> Listed:
    """Return several things as one part of a sentence; of more than `most` the rest is counted."""
    if len(parts) <= most:
        return Listed(tuple(parts))
    return Listed((*parts[: most - 1], say("list_more", count=len(parts) - most + 1)))


def plain(said: Said, language: str) -> str:
    """Return a sentence as text of one language."""
    return _told(said, language, page=False)


def both(*sentences: Said) -> str:
    """Return sentences as HTML in every language, each marked with its own; once where all are the same."""
    told = {
        language: STRINGS[language]["between_sentences"].join(_told(said, language, page=True) for said in sentences)
        for language in STRINGS
    }
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "".join(f'<span lang="{TAGS[language]}">{text}</span>' for language, text in told.items())


def dated(name: str, said: Said, language: str) -> str:
    """Return the attribute `name` in the page's first language, and as data for the switch where another differs."""
    told = {code: plain(said, code) for code in STRINGS}
    first = f' {name}="{escape(told[language])}"'
    if len(set(told.values())) == 1:
        return first
    return f'{first} data-say-{name}="{escape(json.dumps(told, ensure_ascii=False))}"'


def _told(said: Said, language: str, *, page: bool) -> str:
    if isinstance(said, Phrase):
        text = STRINGS[language][said.key]
        fields = {name: _told(part, language, page=page) for name, part in said.fields.items()}
        return (escape(text) if page else text).format_map(fields)
    if isinstance(said, Strong):
        inner = _told(said.part, language, page=page)
        return f"<b>{inner}</b>" if page else inner
    if isinstance(said, Listed):
        parts = [_told(part, language, page=page) for part in said.parts]
        if len(parts) < 2:
            return "".join(parts)
        return STRINGS[language]["list_comma"].join(parts[:-1]) + STRINGS[language]["list_and"] + parts[-1]
    return escape(str(said)) if page else str(said)
