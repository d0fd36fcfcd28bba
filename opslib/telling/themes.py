"""Colours of reports and figures: one light and one dark theme, safe for colour-blind readers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Theme:
    """The colours that a figure is drawn with. `series` are the colours of data in the order of use
    (Okabe and Ito's palette, lightened in the dark theme); `better`, `worse` and `neutral` are for
    comparisons."""

    name: Literal["light", "dark"]
    surface: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]
    better: str
    worse: str
    neutral: str


LIGHT = Theme(
    name="light",
    surface="#ffffff",
    text="#1b2330",
    muted="#566073",
    grid="#e3e7ee",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#5b6b82"),
    better="#0072b2",
    worse="#d55e00",
    neutral="#8b95a5",
)
DARK = Theme(
    name="dark",
    surface="#171c24",
    text="#e6eaf1",
    muted="#a5afbf",
    grid="#2c3441",
    series=("#56b4e9", "#f0883e", "#3fc9a0", "#e79cc4", "#e6c84f", "#9fb0c8"),
    better="#56b4e9",
    worse="#f0883e",
    neutral="#8793a6",
)
THEMES = (LIGHT, DARK)


@contextmanager
def use_theme(theme: Theme) -> Iterator[None]:
    """Draw matplotlib figures of the block in the theme's colours and the project's style."""
    import matplotlib as mpl

    with mpl.rc_context(_style(theme)):
        yield


def _style(theme: Theme) -> Any:
    from cycler import cycler

    return {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.surface,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.labelcolor": theme.muted,
        "axes.labelsize": 10.0,
        "axes.prop_cycle": cycler(color=list(theme.series)),
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.text,
        "axes.titlelocation": "left",
        "axes.titlepad": 10.0,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "figure.edgecolor": theme.surface,
        "figure.facecolor": theme.surface,
        "figure.figsize": (8.8, 4.0),
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10.0,
        "grid.color": theme.grid,
        "grid.linewidth": 0.9,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "lines.markersize": 5.5,
        "savefig.facecolor": theme.surface,
        "svg.fonttype": "path",
        "svg.hashsalt": "pillops",
        "text.color": theme.text,
        "xtick.color": theme.muted,
        "xtick.major.size": 0.0,
        "ytick.color": theme.muted,
        "ytick.major.size": 0.0,
    }
