"""The look of the page: a journal's figure page, quiet colours, day and night, from a phone to a wide screen."""

from __future__ import annotations

from subspace.report.groups import DARK, LIGHT
from subspace.report.page.look import LAYOUT
from subspace.report.page.look_charts import CHARTS

__all__ = ["COLD", "HEAT", "stylesheet"]

COLD, HEAT = "#e3efef", "#0b5563"
"""Ends of the colours of a map, by day: a hue that no line has."""


def stylesheet() -> str:
    """Return the CSS of the page."""
    day = "".join(f"--c{index}:{colour};" for index, colour in enumerate(LIGHT))
    night = "".join(f"--c{index}:{colour};" for index, colour in enumerate(DARK))
    classes = "".join(
        f".c{index}{{stroke:var(--c{index})}}.b{index}{{background:var(--c{index})}}.f{index}{{fill:var(--c{index})}}"
        f".t{index}{{color:color-mix(in srgb,var(--c{index}) 80%,var(--ink))}}"  # words want more contrast than lines
        for index in range(len(LIGHT))
    )
    return (
        f":root{{color-scheme:light dark;--paper:#fdfdfb;--ink:#17191d;--soft:#5d636c;--line:#dcdfe3;--rule:#17191d;"
        f"--shade:#f2f3f4;--good:#0b6e52;--good-wash:#d9ece4;--bad:#a4294f;--bad-wash:#f5dde4;--cold:{COLD};"
        f"--heat:{HEAT};{day}}}"
        f"@media (prefers-color-scheme:dark){{:root{{--paper:#121417;--ink:#e8eaed;--soft:#9aa2ac;--line:#2c3138;"
        f"--rule:#e8eaed;--shade:#1d2126;--good:#55cfa4;--good-wash:#153a2f;--bad:#f291ae;--bad-wash:#45202d;"
        f"--cold:#1f3238;--heat:#7fe0e6;{night}}}}}{LAYOUT}{CHARTS}{classes}"
    )
