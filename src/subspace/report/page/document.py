"""The whole page: one HTML file in every language; it loads nothing and runs one script that its policy names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path

from subspace.core.errors import DataError
from subspace.report.page.cost import fronts, memory
from subspace.report.page.curves import curves, microscope
from subspace.report.page.disagreement import items
from subspace.report.page.epochs import epochs
from subspace.report.page.gates import gates
from subspace.report.page.provenance import provenance
from subspace.report.page.ranking import differences, ranking
from subspace.report.page.runs import files_beside, missing, runs
from subspace.report.page.script import SCRIPT, script_digest
from subspace.report.page.sensitivity import sensitivity
from subspace.report.page.stylesheet import stylesheet
from subspace.report.page.verdict import head, title
from subspace.report.study import Study
from subspace.report.words.phrase import both, plain, say
from subspace.report.words.strings import STRINGS, TAGS
from subspace.runs.durable import replace_file

__all__ = ["write_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src "
"""The browser itself refuses whatever is not in the file."""


def write_page(study: Study, path: Path, *, files: Mapping[str, str] | None = None, language: str = "en") -> None:
    """Write the page of a comparison, of one run or many.

    Args:
        study: What is shown.
        path: The HTML file to write.
        files: Files beside the page to point at: name to the key of the words that say what it is.
        language: The one that the page opens in; a key of `STRINGS`.

    Raises:
        DataError: E-DAT-001 without runs.
        ResourceError: E-RES-002 if the disk refuses.
    """
    if not study.records:
        raise DataError("E-DAT-001", where=str(path), found="no runs to show", action="Name at least one run folder.")
    from subspace import __version__

    parts = [
        head(study),
        ranking(study, language),
        differences(study, language),
        gates(study),
        curves(study, language),
        epochs(study),
        fronts(study, language),
        memory(study, language),
        sensitivity(study, language),
        microscope(study, language),
        items(study, language),
        runs(study),
        provenance(study),
        missing(study),
        files_beside(files or {}),
    ]
    titles = {code: plain(say("page_title", title=title(study)), code) for code in STRINGS}
    page = (
        f'<!doctype html><html lang="{TAGS[language]}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}{script_digest()}">'
        f'<link rel="icon" href="data:,"><title data-say="{escape(json.dumps(titles, ensure_ascii=False))}">'
        f"{escape(titles[language])}</title>"
        f'<style>{stylesheet()}</style></head><body><div class="page">{_bar(language)}<main>{"".join(parts)}</main>'
        f"<footer>{both(say('footer', version=__version__))}</footer></div><script>{SCRIPT}</script></body></html>\n"
    )
    replace_file(path, [page.encode("utf-8", errors="replace")])


def _bar(language: str) -> str:
    buttons = "".join(
        f'<button type="button" data-language="{TAGS[code]}" aria-pressed="{str(code == language).lower()}">'
        f"{escape(text['language_name'])}</button>"
        for code, text in STRINGS.items()
    )
    return f'<div class="bar"><p>{both(say("kicker"))}</p><div class="languages">{buttons}</div></div>'
