"""Loss curves as a PNG, for one run or many, readable at the width of a column.

The line as logged is faint, the smoothed one over it is what the eye follows; every line is named at its end, so that
no legend has to be matched by colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subspace.core.errors import DataError
from subspace.report.axes import draw_chart, fonts, write_picture
from subspace.report.groups import group_runs
from subspace.report.lines import loss_charts
from subspace.report.record import RunRecord
from subspace.report.words.strings import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["loss_curves"]

_AXES_POINTS = 176.0
"""Height of the axes of a picture 3.5 inches high."""


def loss_curves(records: Sequence[RunRecord], path: Path, *, language: str = "en") -> None:
    """Draw training loss and, where there is one, validation loss over the steps of every run.

    Args:
        records: Runs; those that differ only by seed share a colour and a name.
        path: The PNG to write.
        language: Of titles and axes.

    Raises:
        DataError: E-DAT-001 if no run has logged a loss.
        ResourceError: E-RES-002 if the disk refuses.
    """
    text = words(language)
    groups = group_runs(records)
    charts = loss_charts(groups)
    if not charts:
        raise DataError(
            "E-DAT-001", where=str(path), found="no run has logged a loss", action="Name runs that have trained."
        )
    family = fonts(groups, text)

    def draw(figure: Figure) -> None:
        for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
            draw_chart(axes, chart, language, family, _AXES_POINTS)

    write_picture(path, (5.4 * len(charts), 3.5), draw)
