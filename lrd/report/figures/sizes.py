"""What depends on an adapter's size: a statistic against the rank, its differences, bits against parameters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import altair as alt
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.report import style
from lrd.report.figures import live
from lrd.results import Results

if TYPE_CHECKING:  # a cell's own notebook needs neither
    from lrd.analysis.codebooks import Measured
    from lrd.analysis.equivalence import Contrast


def rank_curves(results: Results, value: str = "final", label: str = "final pass@1") -> live.Live:
    """A statistic of each cell against its LoRA rank, one panel a regime, with full fine-tuning's band and the base.

    Small marks are cells, of a shape a student (or seed), by which the legend filters; large ones are means ± sd.
    """
    frame = live.cells_of(results)
    if not len(frame):
        return live.nothing()
    group, title = ("training", "student") if "training" in frame else ("seed", "seed")
    frame["rank"] = frame.name.str.removeprefix("rank ")
    frame = frame.assign(value=frame[value], student=frame[group].astype(str))
    frame = frame[["cell", "regime", "arm", "rank", "seed", "student", "value", "base", "peak", "final", "href"]]
    names = [style.short(arm).removeprefix("rank ") for arm in results.arms]
    shades = [style.colour_of(regime, results) for regime in results.regimes]
    color = alt.Color("regime:N", legend=None, scale=alt.Scale(domain=results.regimes, range=shades))
    x = alt.X("rank:N", title="LoRA rank", scale=alt.Scale(domain=names), axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", title=label, scale=alt.Scale(zero=False))
    chosen = alt.selection_point("chosen", fields=["student"], bind="legend")
    over = alt.selection_point("over", fields=["student", "seed"], on="pointerover", empty=False)  # in all panels
    every = alt.Chart().transform_filter(chosen)
    full, ranks = (every.transform_filter(f"datum.arm {sign} 'full'") for sign in ("==", "!="))
    cells = every.mark_point(filled=True, cursor="pointer", xOffset=9).encode(
        x=x, y=y, color=color, href="href:N", shape=alt.Shape("student:N", title=title),
        size=alt.condition(over, alt.value(110), alt.value(26)),
        opacity=alt.condition(over, alt.value(1), alt.value(0.55)),
        tooltip=live.tips(cell="", value=label, base="base", peak="peak", final="final"),
    )  # fmt: skip
    layers = [
        full.mark_errorband(extent="stdev", opacity=0.14).encode(y=y, color=color),
        full.mark_rule(strokeDash=[6, 3]).encode(y="mean(value):Q", color=color),
        every.mark_rule(strokeDash=[2, 3], color="#777").encode(y="mean(base):Q"),
        cells.add_params(chosen, over),
        ranks.mark_errorbar(extent="stdev", ticks={"size": 7}).encode(x=x, y=y, color=color),
        ranks.mark_line(point={"size": 50}).encode(x=x, y="mean(value):Q", color=color),
    ]
    return live.panels(layers, frame, results.regimes)


def differences(results: Results, found: "Mapping[str, Mapping[str, Contrast]]", margin: float) -> Figure:
    """Every rank minus full fine-tuning, one panel a regime: mean, 90 % (thick) and 95 % intervals, the margin's band.

    The equivalence test passes where the thick interval lies within the band.
    """
    ranks = [arm for arm in results.arms if arm != "full"]
    figure, axes = style.panels(results.regimes, 0.34 * len(ranks) + 1.4)
    markers = style.markers_of(results.arms)
    for ax, regime in zip(axes, results.regimes):
        colour, mine = style.colour_of(regime, results), found.get(regime, {})
        ax.axvspan(-margin, margin, color="0.9", linewidth=0)
        ax.axvline(0, color="0.4", linewidth=0.9)
        for y, arm in enumerate(ranks):
            if c := mine.get(arm):
                ax.plot(c.interval(0.95), (y, y), color=colour, linewidth=1.2)
                ax.plot(c.interval(0.90), (y, y), color=colour, linewidth=3.4, solid_capstyle="butt")
                ax.plot(c.mean, y, marker=markers[arm], color=colour, markeredgecolor="white", markersize=8)
        ax.set(title=regime, xlabel="difference in final pass@1", ylim=(len(ranks) - 0.5, -0.5))
        ax.set_yticks(range(len(ranks)), [f"rank {arm[1:]}" for arm in ranks])
        ax.grid(visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, symmetric=True))
        style.say_if_empty(ax, list(mine), "nothing to compare")
    reach = max([abs(end) for arms in found.values() for c in arms.values() for end in c.interval()], default=0.0)
    reach = 1.08 * max(reach, 1.6 * margin)
    for ax in axes:
        ax.set_xlim(-reach, reach)
    return style.finish(figure, axes)


def law(rewards: "Mapping[str, Measured]") -> Figure:
    """Bits learned at the last evaluation against trained parameters: a panel a reward, a line a codebook.

    Dots are replicates, the line their mean, its star full fine-tuning; dotted is all there is to know, grey one bit a
    parameter.
    """
    figure, axes = plt.subplots(1, len(rewards), figsize=(style.WIDTH, 3.2), sharex=True, sharey=True, squeeze=False)
    information = next(iter(rewards.values())).information
    shades = plt.get_cmap("viridis")(np.linspace(0.75, 0.0, len(information)))
    least = max(1, min(m.bits[..., -1].min() for m in rewards.values()))
    for ax, (regime, m) in zip(axes[0], rewards.items()):
        bits = np.maximum(m.bits[..., -1], 1)  # what is less than a bit, or negative, lies on the floor
        ax.plot(m.parameters, m.parameters, color="0.8", linewidth=1)
        for i, shade in enumerate(shades):
            ax.axhline(information[i], color=shade, linestyle=":", linewidth=1)
            ax.plot(np.tile(m.parameters, (m.n, 1)), bits[:, :, i], ".", color=shade, markersize=3, alpha=0.6)
            mean = bits[:, :, i].mean(0)
            ax.plot(m.parameters, mean, color=shade, linestyle=style.dash(i))
            ax.plot(m.parameters[-1:], mean[-1:], style.FULL_MARKER, color=shade, markersize=9)
        ax.set(title=regime, xlabel="trained parameters", xscale="log", yscale="log")
        ax.set_ylim(0.7 * least, 2 * information.max())
    axes[0, 0].set_ylabel("bits learned")
    style.legend_of_lines(figure, shades, [f"{bits:,.0f} bits to learn" for bits in information])
    return style.finish(figure, axes)


def budget(ours: pd.DataFrame, theirs: pd.DataFrame, results: Results) -> Figure:
    """Bits delivered against capacity, one point a cell, the line where they are equal; `theirs` hollow, bounds only.

    Takes the frames of `budget.cells` and `budget.scale`. Above the line more is sent than two bits a parameter hold.
    """
    figure, axes = plt.subplots(1, 2, figsize=(style.WIDTH, 4.2), sharex=True, sharey=True)
    frames = pd.concat([frame[["capacity", "at_most", "measured"]] for frame in (ours, theirs)])
    (left, right), (low, high) = _decades(frames.capacity), _decades(pd.concat([frames.at_most, frames.measured]))
    ends = [min(left, low), max(right, high)]
    for ax, value, title in zip(axes, ("at_most", "measured"), ("at most, by the bounds", "measured")):
        ax.fill_between(ends, ends, ends[0], color="0.95", linewidth=0, zorder=0)
        ax.plot(ends, ends, color="0.35", linewidth=1.1, zorder=1)
        for frame, filled in ((theirs, False), (ours, True)):
            _points(ax, frame[frame[value] > 0], value, results, filled)
        ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high), title=title, xlabel="capacity (bits)")
        ax.text(0.97, 0.51, "room for all that is delivered:\na flat curve decides nothing", transform=ax.transAxes,
                ha="right", va="center", fontsize=8.5, color="0.35")  # fmt: skip
        ax.text(0.03, 0.97, "more than is held", transform=ax.transAxes, va="top", fontsize=8.5, color="0.35")
        style.say_if_empty(ax, ours[ours[value] > 0])
    axes[0].set_ylabel("delivered by a run (bits)")
    style.legend(figure, _key_of_points(results), 5, columnspacing=1.2, handlelength=1.6)
    sns.despine(figure)
    return figure


def _points(ax: Axes, frame: pd.DataFrame, value: str, results: Results, filled: bool) -> None:
    """A mark a row: the regime's colour and fill, the arm's marker; grey and hollow where the regime is unknown."""
    markers = style.markers_of(results.arms)
    for row in frame.itertuples():
        known, marker = row.regime in results.regimes, markers.get(row.arm, "o")
        ax.plot(
            row.capacity, getattr(row, value), marker, markersize=9 if marker == style.FULL_MARKER else 6.5,
            color=style.colour_of(row.regime, results) if known else "0.4",
            fillstyle=style.FILLS[results.regimes.index(row.regime) % len(style.FILLS)] if filled and known else "none",
            markerfacecoloralt="white", markeredgewidth=0.8 if filled else 1.1,
        )  # fmt: skip


def _key_of_points(results: Results) -> list[Artist]:
    halves = dict(marker="o", linestyle="", markersize=8, markerfacecoloralt="white")
    key: list[Artist] = [
        style.mark(regime, style.colour_of(regime, results), fillstyle=style.FILLS[i % len(style.FILLS)], **halves)
        for i, regime in enumerate(results.regimes)
    ]
    for arm, marker in style.markers_of(results.arms).items():
        key.append(
            style.mark(style.short(arm), "0.3", marker=marker, linestyle="", markersize=9 if arm == "full" else 6)
        )
    return [*key, style.mark("the report's scale", "0.3", marker="o", linestyle="", markerfacecolor="none")]


def _decades(values: pd.Series) -> tuple[float, float]:
    """Limits of a logarithmic axis with room on both sides."""
    found = values[values > 0]
    return (found.min() / 5, found.max() * 5) if len(found) else (1.0, 1e4)
