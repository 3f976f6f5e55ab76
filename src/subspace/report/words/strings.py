"""The tables of words by language; {fields} are filled in where they are used."""

from __future__ import annotations

from collections.abc import Mapping

from subspace.report.words.en import ENGLISH
from subspace.report.words.zh import CHINESE

__all__ = ["STRINGS", "TAGS", "words"]

STRINGS: Mapping[str, Mapping[str, str]] = {"en": ENGLISH, "zh": CHINESE}
TAGS: Mapping[str, str] = {"en": "en", "zh": "zh-Hans"}
"""What HTML calls the languages."""


def words(language: str) -> Mapping[str, str]:
    """Return the words of a language.

    Raises:
        KeyError: If there is none of that name.
    """
    return STRINGS[language]
