"""One style: a colour means a regime and a marker an arm, everywhere.

Where several regimes share an axis each has its own dash too, so that they can be told apart in grey.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.results import Results

WIDTH = 8.4  # inches: the book's column, so that a font size here is about the size on the page
STYLE = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 144,
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": "0.35",
    "axes.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}
sns.set_theme(context="notebook", style="ticks", rc=STYLE)

# Okabe and Ito's colours, apart from each other with any colour vision and, by lightness or dash, in grey.
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
DASHES = ["-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
FULL_MARKER = "*"
FILLS = ["full", "left", "bottom", "right", "top"]  # of a regime's marks where several share an axis

METRICS = {
    "pass@1": "greedy pass@1",
    "reward": "reward an episode",
    "advantage_std": "advantage std",
    "kl": "KL to the base (nats a token)",
    "entropy": "entropy (nats a token)",
    "completions/mean_length": "completion length (tokens)",
    "completions/clipped_ratio": "share of completions cut",
    "accuracy": "accuracy of sampled completions",
    "frac_reward_zero_std": "share of prompts without a signal",
    "grad_norm": "gradient norm before clipping",
    "answered": "share of problems answered",
}
"""What a metric of training batches, or of evaluations, is called on an axis, with its unit."""


def colour_of(regime: str, results: Results) -> str:
    """The regime's colour, by its place in the matrix."""
    return OKABE_ITO[results.regimes.index(regime) % len(OKABE_ITO)]


def dash(i: int) -> Any:
    """The dash of the i-th line among several."""
    return DASHES[i % len(DASHES)]


def markers_of(arms: list[str]) -> dict[str, str]:
    """One marker an arm; the star is full fine-tuning."""
    return {arm: FULL_MARKER if arm == "full" else MARKERS[i % len(MARKERS)] for i, arm in enumerate(arms)}


def short(arm: str) -> str:
    """The arm's name where there is little room."""
    return "FullFT" if arm == "full" else f"rank {arm[1:]}"


def panels(regimes: list[str], height: float) -> tuple[Figure, np.ndarray]:
    """A row of axes, one a regime and at least one."""
    figure, axes = plt.subplots(1, max(1, len(regimes)), figsize=(WIDTH, height), sharey=True, squeeze=False)
    return figure, axes[0]


def limits(values: pd.DataFrame) -> tuple[float, float]:
    """From zero to a little above the largest, all of [0, 1] where there is none; no panel hides where zero is."""
    top = float(values.max(axis=None)) if len(values) else 1.0
    return -0.03, 1.05 * top if top > 0 else 1.03


def say_if_empty(ax: Axes, rows: pd.DataFrame | list, text: str = "no finished cell") -> None:
    """Writes that across axes that have no rows to show."""
    if not len(rows):
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="0.45")


def finish(figure: Figure, axes: np.ndarray) -> Figure:
    """Whole numbers on axes of steps, and no frame; returns the figure."""
    for ax in np.asarray(axes).flat:
        if "step" in (ax.get_xlabel() or "step"):
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    sns.despine(figure)
    return figure


def legend_of_lines(figure: Figure, shades: np.ndarray, names: list[str], title: str | None = None) -> None:
    """What lines mean that differ by shade and, in grey, by dash."""
    key = [plt.Line2D([], [], color=shade, linestyle=dash(i)) for i, shade in enumerate(shades)]
    figure.legend(key, names, title=title, loc="outside lower center", ncols=len(key))


def legend(figure: Figure, key: Sequence[Artist], columns: int, **style: Any) -> None:
    """A legend below the panels, of marks that carry their labels."""
    figure.legend(handles=key, loc="outside lower center", ncols=columns, **style)


def mark(label: str, colour: str | tuple[float, ...], **style: Any) -> plt.Line2D:
    """A mark of a legend."""
    return plt.Line2D([], [], color=colour, label=label, **style)
