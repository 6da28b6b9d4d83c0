"""Curves over the steps: of one cell, of an arm's seeds, of all cells."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrd.report import style
from lrd.report.figures import live
from lrd.results import Results


def learning_curves(results: Results) -> live.Live:
    """Greedy pass@1 over the steps, one panel a regime, one line an arm (mean over cells), the base dotted.

    A pointer finds the evaluations of single cells, and brings the arm forward in all panels.
    """
    cells = live.cells_of(results)
    if not len(cells):
        return live.nothing()
    frame = results.of_finished(results.curves).rename(columns={"pass@1": "value"})
    shown = cells[["cell", "name", "peak", "final", "href"]]
    frame = frame[["cell", "regime", "step", "value"]].merge(shown, on="cell")
    x, color = alt.X("step:Q", title="step"), live.colours_of(results.arms)
    y = alt.Y("value:Q", title="greedy pass@1", scale=alt.Scale(zero=False))
    chosen = alt.selection_point("chosen", fields=["name"], bind="legend")
    arm = alt.selection_point("arm", fields=["name"], on="pointerover")
    over = alt.selection_point("over", fields=["cell"], on="pointerover", empty=False)
    every, seen = alt.Chart().transform_filter(chosen), alt.condition(over, alt.value(1), alt.value(0))
    means = every.mark_line(strokeWidth=1.8).encode(
        x=x, y="mean(value):Q", color=color, opacity=alt.condition(arm, alt.value(1), alt.value(0.15)),
        strokeDash=alt.condition(live.IS_FULL, alt.value([6, 3]), alt.value([1, 0])),
    )  # fmt: skip
    points = every.mark_point(filled=True, size=45, cursor="pointer").encode(
        x=x, y=y, color=color, href="href:N", opacity=seen,
        tooltip=live.tips(cell="", step="", value="pass@1", peak="peak", final="final"),
    )  # fmt: skip
    layers = [
        every.transform_filter("datum.step == 0").mark_rule(strokeDash=[2, 3], color="#777").encode(y="mean(value):Q"),
        means.add_params(chosen),  # the first layer of the legend's colours, or it does not filter
        every.mark_line(strokeWidth=1)
        .encode(x=x, y=y, color=color, detail="cell:N", opacity=seen)
        .properties(name=live.TOUCH),
        points.properties(name=f"{live.TOUCH}-points").add_params(arm, over),
    ]
    return live.panels(layers, frame, results.regimes)


def every_cell(frame: pd.DataFrame, label: str, regimes: Sequence[str], arms: Sequence[str]) -> live.Live:
    """A metric over the steps: one panel a regime, each with its range, one line a cell, dotted if it did not finish.

    `frame`: one row a step, `value` at `step`, with what `lrd.report.explore` knows of the cell.
    """
    if not len(frame):
        return live.nothing("nothing is measured")
    y = alt.Y("value:Q", title=label, scale=alt.Scale(zero=False))
    chosen = alt.selection_point("chosen", fields=["name"], bind="legend")
    over = alt.selection_point("over", fields=["cell"], on="pointerover")
    lines = alt.Chart().transform_filter(chosen).encode(
        x=alt.X("step:Q", title="step"), y=y, color=live.colours_of(arms), detail="cell:N",
    )  # fmt: skip
    layers = [
        lines.mark_line(strokeWidth=1.1)
        .encode(
            opacity=alt.condition(over, alt.value(0.85), alt.value(0.08)),
            strokeDash=alt.condition("datum.state == 'finished'", alt.value([1, 0]), alt.value([2, 3])),
        )
        .add_params(chosen),
        lines.mark_line(strokeWidth=9, opacity=0.001, cursor="pointer")
        .encode(href="href:N", tooltip=live.tips(cell="", state="", last="last", least="smallest", most="largest"))
        .properties(name=live.TOUCH)
        .add_params(over),
    ]
    return live.panels(layers, frame, regimes, y="independent")


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
