"""Collapse: its signals in the order of their onsets, which leads which, and what interventions do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import altair as alt
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lrd.report import style
from lrd.report.figures import live
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


def onset_order(results: Results, onsets: pd.DataFrame, signals: list[str]) -> live.Live:
    """Onset steps of each cell, the chain downwards, one panel a regime that has any; a tick is their median.

    A bar is where the onset must lie; a pointer joins those of its cell.
    """
    cells = live.cells_of(results).set_index("cell")
    frame = pd.DataFrame(
        [
            {"cell": row.cell, "regime": row.regime, "signal": name, "place": place}
            | {"after": row[name].after, "by": row[name].by, "middle": row[name].middle}
            for _, row in onsets.iterrows()
            for place, name in enumerate(signals)
            if row[name] is not None
        ]
    )
    if not len(frame):
        return live.nothing("no onset in any finished cell")
    frame = frame.join(cells[["name", "href"]], on="cell")
    color, x = live.colours_of(results.arms), alt.X("after:Q", title="step")
    y = alt.Y("signal:N", sort=signals, title=None)
    chosen = alt.selection_point("chosen", fields=["name"], bind="legend")
    over = alt.selection_point("over", fields=["cell"], on="pointerover", empty=False)
    every = alt.Chart().transform_filter(chosen)
    seen, strong = (alt.condition(over, alt.value(1), alt.value(faint)) for faint in (0, 0.6))
    bars = every.mark_bar(cursor="pointer").encode(
        x=x, x2="by:Q", y=y, yOffset="cell:N", color=color, href="href:N", opacity=strong,
        tooltip=live.tips(cell="", signal="", after="after step", by="by step"),
    )  # fmt: skip
    layers = [
        every.mark_line(strokeWidth=1.5)
        .encode(x="middle:Q", y=y, yOffset="cell:N", detail="cell:N", order="place:Q", color=color, opacity=seen)
        .properties(name=live.TOUCH)
        .add_params(chosen),
        bars.add_params(over),
        every.mark_tick(thickness=2, color="black").encode(x="median(middle):Q", y=y),
    ]
    shown = [regime for regime in results.regimes if (frame.regime == regime).any()]
    return live.panels(layers, frame, shown, height=300)


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
