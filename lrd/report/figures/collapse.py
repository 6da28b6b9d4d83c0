"""Collapse: its signals in the order of their onsets, which leads which, and what interventions do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lrd.report.figures import style
from lrd.results import Results

if TYPE_CHECKING:
    from lrd.analysis.onset import LeadLag


def repairs(frame: pd.DataFrame) -> Figure:
    """Peak advantage std and final pass@1 under each repair, none in grey: a mark a cell, a bar the adapters' mean."""
    names = list(frame.intervention.unique())
    markers = style.markers_of(list(frame.sort_values("rank").arm.unique()))  # full fine-tuning, without a rank, last
    size = (style.WIDTH, 1.3 + 0.27 * max(len(names), 3))
    figure, axes = plt.subplots(1, 2, figsize=size, sharey=True, squeeze=False)
    for ax, (value, label) in zip(axes[0], (("magnitude", "peak advantage std"), ("final", "final pass@1"))):
        style.say_if_empty(ax, names)
        for cell in frame.itertuples():
            colour, size = "0.4" if cell.intervention == "none" else style.OKABE_ITO[1], 7 if cell.arm == "full" else 4
            at = names.index(cell.intervention)
            ax.plot(getattr(cell, value), at, markers[cell.arm], color=colour, markersize=size, alpha=0.55)
        for i, mean in enumerate(frame[frame["rank"].notna()].groupby("intervention")[value].mean().reindex(names)):
            ax.plot([mean, mean], [i - 0.32, i + 0.32], color="0.15", linewidth=2)
        ax.set_xlabel(label)
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylabel("repair")
    axes[0, 0].invert_yaxis()
    key = [style.mark(style.short(arm), "0.4", marker=m, linestyle="") for arm, m in markers.items()]
    style.legend(figure, key, max(1, len(key)))
    return style.finish(figure, axes)


def onset_order(results: Results, onsets: pd.DataFrame, signals: list[str]) -> Figure:
    """Onset steps of each cell, the chain downwards, one panel a regime; the bar is where the onset must lie.

    A line joins the onsets of a cell, the wide tick is their median.
    """
    figure, axes = style.panels(results.regimes, 3.4)
    for ax, regime in zip(axes, results.regimes):
        mine, colour = onsets[onsets.regime == regime], style.colour_of(regime, results)
        shifts = np.linspace(-0.3, 0.3, len(mine)) if len(mine) > 1 else [0.0]
        for shift, (_, row) in zip(shifts, mine.iterrows()):
            spots = [(row[name], y + shift) for y, name in enumerate(signals) if row[name] is not None]
            ax.plot([o.middle for o, _ in spots], [y for _, y in spots], color="0.8", linewidth=0.7, zorder=1)
            for o, y in spots:
                ax.plot((o.after, o.by), (y, y), color=colour, linewidth=1.7, solid_capstyle="butt")
        for y, name in enumerate(signals):
            if middles := [o.middle for o in mine[name] if o is not None]:
                ax.plot([np.median(middles)] * 2, (y - 0.42, y + 0.42), color="0.1", linewidth=1.6)
        ax.set(title=regime, xlabel="step", ylim=(len(signals) - 0.5, -0.5))
        ax.set_xlim(0, max(1.0, results.steps.step.max() if len(results.steps) else 1.0))
        ax.set_yticks(range(len(signals)), signals)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False)
        style.say_if_empty(ax, mine)
        if len(mine):
            style.say_if_empty(ax, [o for name in signals for o in mine[name] if o is not None], "no onset in any cell")
    return style.finish(figure, axes)


def lead_lag(results: Results, leads: "Mapping[str, Mapping[tuple[str, str], LeadLag]]") -> Figure:
    """Lead–lag correlations, one panel a link, one line a regime: mean over cells with its 95 % interval."""
    pairs = list(dict.fromkeys(pair for mine in leads.values() for pair in mine))
    figure, axes = plt.subplots(1, max(1, len(pairs)), figsize=(style.WIDTH, 3.0), sharey=True, squeeze=False)
    for ax, pair in zip(axes[0], pairs):
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
        drawn = []
        for i, (regime, mine) in enumerate(leads.items()):
            curve = mine[pair]
            if curve.cells < 2:  # one cell has no interval to be judged by
                continue
            drawn.append(regime)
            colour = style.colour_of(regime, results)
            ax.fill_between(curve.lags, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
            ax.plot(curve.lags, curve.mean, color=colour, linestyle=style.dash(i), label=regime)
        ax.set(title=f"{pair[0]} →\n{pair[1]}", xlabel="lag (steps)", ylim=(-1.05, 1.05))
        style.say_if_empty(ax, drawn, "fewer than\ntwo cells")
    axes[0, 0].set_ylabel("correlation of changes")
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, handlelength=2.6)
    return style.finish(figure, axes)
