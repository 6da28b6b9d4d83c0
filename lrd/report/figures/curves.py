"""Curves over the steps: of one cell, of an arm's seeds, of all cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.report.figures import style
from lrd.results import Results, measure

OF_A_CELL = ("reward", "advantage_std", "kl", "completions/mean_length", "completions/clipped_ratio")
AT_RIGHT = dict(
    xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom", fontsize=8.5, color="0.35"
)


def cell_curves(steps: pd.DataFrame, evals: pd.DataFrame) -> Figure:
    """One cell over its steps: pass@1 (or the score) on held-out problems, then the metrics of its training batches."""
    figure, grid = plt.subplots(2, 3, figsize=(style.WIDTH, 4.6), sharex=True)
    axes = grid.flat
    scored = len(evals) and measure(evals) == "score"
    if len(evals):
        curve = evals[measure(evals)].astype(float).groupby(evals.step).agg(["mean", "std", "count"])
        spread = curve["std"] if scored else (curve["mean"] * (1 - curve["mean"])) ** 0.5
        error = spread / curve["count"] ** 0.5
        axes[0].errorbar(curve.index, curve["mean"], error, color="0.15", marker="o", markersize=4, capsize=2)
        axes[0].axhline(curve["mean"].iloc[0], color="0.5", linestyle=":")
        axes[0].annotate("base", (1, curve["mean"].iloc[0]), (0, 2), **AT_RIGHT)
    axes[0].set(ylabel="score of greedy answers ± s.e.") if scored else axes[0].set(
        ylim=(-0.02, 1.02), ylabel="greedy pass@1 ± s.e."
    )
    for ax, key in zip(axes[1:], OF_A_CELL):
        if key in steps:
            ax.plot(steps.step, steps[key], color="0.15", linewidth=1.1)
        ax.set_ylabel(style.METRICS[key])
    axes[5].set_ylim(-0.02, 1.02)
    for ax in grid[1]:
        ax.set_xlabel("step")
    return style.finish(figure, grid)


def learning_curves(results: Results) -> Figure:
    """Greedy pass@1 over the steps, one panel a regime, one line an arm (mean ± sd over cells), the base dotted.

    The range of pass@1 is that of the data.
    """
    figure, axes = style.panels(results.regimes, 3.3)
    curves, styles = results.of_finished(results.curves), _styles(results.arms)
    for ax, regime in zip(axes, results.regimes):
        mine, colour = curves[curves.regime == regime], np.array(to_rgb(style.colour_of(regime, results)))
        for arm, (strength, look) in styles.items():
            its = mine[mine.arm == arm]
            if not len(its):
                continue
            line = its.groupby("step")["pass@1"].agg(["mean", "std"]).fillna(0.0)
            shade = "0.1" if arm == "full" else 1 - strength * (1 - colour)
            ax.plot(line.index, line["mean"], color=shade, **look)
            ax.fill_between(line.index, line["mean"] - line["std"], line["mean"] + line["std"], color=shade, alpha=0.08)
        if len(mine):
            ax.axhline(mine[mine.step == 0]["pass@1"].mean(), color="0.4", linestyle=":", linewidth=1.3)
        ax.set(title=regime, xlabel="step")
        style.say_if_empty(ax, mine)
    if len(axes):
        axes[0].set_ylabel("greedy pass@1")
        key = [
            style.mark(style.short(arm), "0.1" if arm == "full" else str(0.85 - 0.7 * strength), **look)
            for arm, (strength, look) in styles.items()
        ]
        key.append(style.mark("base", "0.4", linestyle=":", linewidth=1.3))
        style.legend(figure, key, min(len(key), 7), columnspacing=1.2, handlelength=1.8)
    return style.finish(figure, axes)


def _styles(arms: Sequence[str]) -> dict[str, tuple[float, dict[str, Any]]]:
    """Arm → how strong its colour is, which grows with the rank, and its line; full fine-tuning is dashed."""
    markers, strengths = style.markers_of(list(arms)), np.linspace(0.35, 1.0, max(1, len(arms) - 1))
    styles = {}
    for i, arm in enumerate(arms):
        size, line = (6, "--") if arm == "full" else (4, "-")
        look = dict(marker=markers[arm], markersize=size, linewidth=1.3, linestyle=line)
        styles[arm] = strengths[min(i, len(strengths) - 1)], look
    return styles


def every_cell(
    results: Results,
    metric: str,
    regimes: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    steps: tuple[int, int] | None = None,
) -> Figure:
    """A metric over the steps of every cell: one row a regime, the arms side by side, one line a seed.

    All there are, unless some are named; `steps` are the first and the last shown. Unfinished cells are dotted.
    """
    rows = [name for name in results.regimes if regimes is None or name in regimes]
    arms = [arm for arm in results.arms if arms is None or arm in arms]
    frame, finished = results.measured(metric), set(results.finished.cell)
    frame = frame if seeds is None else frame[frame.seed.isin(seeds)]
    first, last = steps or ((frame.step.min(), frame.step.max()) if len(frame) else (0, 1))
    frame, pitch = frame[frame.step.between(first, last)], 1.12 * max(last - first, 1)  # arms stand that far apart
    size = (style.WIDTH, 0.8 + 1.25 * max(1, len(rows)))
    figure, axes = plt.subplots(max(1, len(rows)), 1, figsize=size, sharex=True, squeeze=False)
    for ax, regime in zip(axes[:, 0], rows):
        mine, colour = frame[frame.regime == regime], style.colour_of(regime, results)
        for cell, its in mine[mine.arm.isin(arms)].groupby("cell"):
            x = arms.index(its.arm.iloc[0]) * pitch + its.step - first
            ax.plot(x, its.value, "-" if cell in finished else ":", color=colour, linewidth=1, alpha=0.8)
        for i in range(1, len(arms)):
            ax.axvline(i * pitch - 0.06 * (last - first), color="0.8", linewidth=0.8)
        low, high = (mine.value.min(), mine.value.max()) if mine.value.any() else (0.0, 1.0)  # a range, if all are 0
        ax.set(title=regime, ylim=(min(1.05 * low, -0.03 * high), max(1.05 * high, -0.03 * low)))  # zero is in sight
        ax.tick_params(axis="x", length=0)
        style.say_if_empty(ax, mine, "nothing is measured")
    lowest, middle = axes[-1, 0], (last - first) / 2
    lowest.set_xticks([i * pitch + middle for i in range(len(arms))], [style.short(arm) for arm in arms])
    lowest.set_xlim(-0.06 * (last - first), max(1, len(arms)) * pitch - 0.06 * (last - first))
    lowest.set_xlabel(f"each arm from step {first:.0f} to step {last:.0f}")
    figure.supylabel(style.METRICS.get(metric, metric), fontsize=10)
    sns.despine(figure)
    return figure


def by_rate(curves: pd.DataFrame, regimes: Sequence[str], arms: Sequence[str], chosen: Mapping[Any, float]) -> Figure:
    """Validation pass@1 over the steps, mean over students: a row a regime, a column an arm, a line a learning rate.

    `curves` are those of `analysis.sweep`. The chosen rate is bold; a thin grey line is the base.
    """
    size = (style.WIDTH, 0.9 + 1.75 * max(1, len(regimes)))
    figure, axes = plt.subplots(len(regimes), len(arms), figsize=size, sharex=True, sharey=True, squeeze=False)
    rates = sorted(curves.learning_rate.unique())
    shades = plt.get_cmap("viridis")(np.linspace(0.9, 0.0, len(rates)))
    for row, regime in zip(axes, regimes):
        for ax, arm in zip(row, arms):
            its = curves[(curves.regime == regime) & (curves.arm == arm)]
            ax.axhline(its["pass@1"][its.step == 0].mean(), color="0.6", linewidth=0.8)
            for i, rate in enumerate(rates):
                line = its[its.learning_rate == rate].groupby("step")["pass@1"].mean()
                width = 2.6 if chosen.get((regime, arm)) == rate else 1.1
                ax.plot(line.index, line, color=shades[i], linestyle=style.dash(i), linewidth=width)
            style.say_if_empty(ax, its, "not finished")
        row[0].set_ylabel(f"{regime}\npass@1")
    for ax, arm in zip(axes[0], arms):
        ax.set(title=style.short(arm), ylim=(-0.02, None))
    for ax in axes[-1]:
        ax.set_xlabel("step")
    if rates:
        style.legend_of_lines(figure, shades, [f"{rate:g}" for rate in rates], title="learning rate")
    style.finish(figure, axes)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(nbins=2, integer=True))  # shared: panels are narrow
    return figure
