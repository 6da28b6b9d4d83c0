"""What depends on an adapter's size: a statistic against the rank, its differences, bits against parameters."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.report.figures import style
from lrd.results import Results

if TYPE_CHECKING:  # a cell's own notebook needs neither
    from lrd.analysis.codebooks import Measured
    from lrd.analysis.equivalence import Contrast


def rank_curves(results: Results, value: str = "final", label: str = "final pass@1") -> Figure:
    """A statistic of each cell against its LoRA rank, one panel a regime, with full fine-tuning's band and the base.

    Small marks are cells; large ones their mean ± sd. The band is full fine-tuning's mean ± sd.
    """
    figure, axes = style.panels(results.regimes, 3.0)
    ranks = [arm for arm in results.arms if arm != "full"]
    markers = style.markers_of(results.arms)
    low, high = style.limits(results.finished[["base", value]])
    for ax, regime in zip(axes, results.regimes):
        colour = style.colour_of(regime, results)
        cells = results.finished[results.finished.regime == regime]
        _band(ax, cells[cells.arm == "full"][value], colour)
        if len(base := cells.base.dropna()):
            ax.axhline(base.mean(), color="0.4", linestyle=":", linewidth=1.3)
        for x, arm in enumerate(ranks):
            mine = cells[cells.arm == arm][value]
            ax.plot(x + np.linspace(0.2, 0.36, len(mine)), mine, ".", color=colour, markersize=4.5, alpha=0.6)
            if len(mine):
                error = mine.std() if len(mine) > 1 else 0.0
                ax.errorbar(x, mine.mean(), error, color=colour, marker=markers[arm], markersize=6, capsize=3)
        means = cells.groupby("arm")[value].mean().reindex(ranks)
        ax.plot(range(len(ranks)), means, color=colour, linewidth=1)
        ax.set(title=regime, xlabel="LoRA rank", ylim=(low, high), xlim=(-0.5, len(ranks) - 0.5))
        ax.set_xticks(range(len(ranks)), [arm[1:] for arm in ranks])
        style.say_if_empty(ax, cells)
    if len(axes):
        axes[0].set_ylabel(label)
        key = [
            style.mark("mean ± sd over cells", "0.25", marker="o", linewidth=1),
            plt.Rectangle((0, 0), 1, 1, color="0.8", label="full fine-tuning, mean ± sd"),
            style.mark("base model", "0.4", linestyle=":", linewidth=1.3),
        ]
        style.legend(figure, key, 3)
    return style.finish(figure, axes)


def _band(ax: Axes, full: pd.Series, colour: str) -> None:
    """Mean ± sd of full fine-tuning across the axes."""
    if len(full):
        spread = full.std() if len(full) > 1 else 0.0
        ax.axhspan(full.mean() - spread, full.mean() + spread, color=colour, alpha=0.16, linewidth=0)
        ax.axhline(full.mean(), color=colour, linewidth=1.2, linestyle=(0, (5, 2)))


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
        ax.text(0.97, 0.42, "room for all that is delivered:\na flat curve decides nothing", transform=ax.transAxes,
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
