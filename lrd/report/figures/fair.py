"""Adapters against full fine-tuning: each rank's difference by measure, and how it goes over the steps."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.analysis.fair import ADAPTERS
from lrd.analysis.stats import Verdict
from lrd.report import style
from lrd.results import Results

# measure → its label, mark and colour: none that a reward has in a matrix of three
MEASURES = {
    "chosen": ("step chosen by validation", "o", "0.1"),
    "final": ("last step", "s", "#CC79A7"),
    "area": ("area under the curve", "^", "#E69F00"),
}
UNJUDGED = "0.62"


def forest(results: Results, tables: Mapping[str, pd.DataFrame], gains: Mapping[str, float], margin: float) -> Figure:
    """Each rank minus full fine-tuning, one panel a regime, a mark and 95 % interval a measure; grey if not judged.

    `gains`: what full fine-tuning gains over its base, a dotted line. Each panel has its own range.
    """
    ranks = [arm for arm in results.arms if arm != "full"]
    figure, axes = style.panels(results.regimes, 0.52 * len(ranks) + 1.6)
    for ax, regime in zip(axes, results.regimes):
        ax.axvspan(-margin, margin, color="0.91", linewidth=0)
        ax.axvline(0, color="0.4", linewidth=0.9)
        mine = {measure: table[table.regime == regime].set_index("arm") for measure, table in tables.items()}
        if regime in gains:
            ax.axvline(gains[regime], color=style.colour_of(regime, results), linestyle=(0, (1.5, 1.5)), linewidth=1.8)
        for i, (measure, table) in enumerate(mine.items()):
            _marks(ax, table.reindex(ranks), measure, 0.24 * (i - (len(mine) - 1) / 2))
        ax.set(title=regime, xlabel="LoRA − full, pass@1", ylim=(len(ranks) - 0.5, -0.5))
        ax.set_yticks(range(len(ranks)), [arm[1:] for arm in ranks])
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4))
        rows = pd.concat(mine.values())
        style.say_if_empty(ax, rows, "nothing to compare")
        if (rows.verdict == Verdict.UNJUDGED).any():
            ax.set_title("not judged", loc="right", fontsize=9, color="0.45")
    axes[0].set_ylabel("LoRA rank")
    style.legend(figure, _key(tables), 3, columnspacing=1.4)
    return style.finish(figure, axes)


def _marks(ax: Axes, table: pd.DataFrame, measure: str, shift: float) -> None:
    """A measure's marks and intervals, below or above the middle of each rank's row."""
    _, marker, colour = MEASURES[measure]
    for y, row in enumerate(table.itertuples()):
        shade = UNJUDGED if row.verdict is Verdict.UNJUDGED else colour
        ax.plot((row.low, row.high), (y + shift, y + shift), color=shade, linewidth=1.3)
        face = "white" if shade == UNJUDGED else shade
        ax.plot(row.difference, y + shift, marker, color=shade, markerfacecolor=face, markersize=5.5)


def _key(tables: Mapping[str, pd.DataFrame]) -> list[Artist]:
    key: list[Artist] = [
        style.mark(label, colour, marker=marker, markersize=5.5, linewidth=1.3)
        for label, marker, colour in (MEASURES[measure] for measure in tables)
    ]
    gain = style.mark("full fine-tuning's gain over the base", "0.4", linestyle=(0, (1.5, 1.5)), linewidth=1.8)
    return [*key, style.mark("equivalence margin", "0.88", linewidth=7, solid_capstyle="butt"), gain]


def difference_curves(results: Results, curve: pd.DataFrame, margin: float) -> Figure:
    """Adapters minus full fine-tuning over the steps, one panel a regime: mean bold with its 95 % band, ranks thin.

    `curve` is that of `lrd.analysis.fair`.
    """
    figure, axes = style.panels(results.regimes, 3.1)
    for ax, regime in zip(axes, results.regimes):
        mine, colour = curve[curve.regime == regime], style.colour_of(regime, results)
        ax.axhspan(-margin, margin, color="0.91", linewidth=0)
        ax.axhline(0, color="0.4", linewidth=0.9)
        for arm, line in mine.groupby("arm", sort=False):
            if arm != ADAPTERS:
                ax.plot(line.step, line.difference, color=colour, linewidth=0.8, alpha=0.55)
        pooled = mine[mine.arm == ADAPTERS].astype({name: float for name in ("step", "difference", "low", "high")})
        ax.fill_between(pooled.step, pooled.low, pooled.high, color=colour, alpha=0.16, linewidth=0)
        ax.plot(pooled.step, pooled.difference, color=colour, linewidth=2.4)
        ax.set(title=regime, xlabel="step")
        style.say_if_empty(ax, mine, "nothing to compare")
    axes[0].set_ylabel("LoRA − full, pass@1")
    key: list[Artist] = [
        style.mark("mean of the adapters, 95 % interval", "0.25", linewidth=2.4),
        style.mark("each rank", "0.5", linewidth=0.8),
        style.mark("equivalence margin", "0.88", linewidth=7, solid_capstyle="butt"),
    ]
    style.legend(figure, key, 3)
    return style.finish(figure, axes)
