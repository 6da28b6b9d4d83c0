"""Trials of supervised starts: pass@1 over the steps."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lrd.report import style
from lrd.results import Results


def starts(results: Results, gain: float) -> Figure:
    """Greedy pass@1 over the steps, a panel a start, a line a cell; grey is what lies `gain` above the base."""
    curves = results.of_finished(results.curves)
    names = sorted(results.cells.start.unique())
    figure, axes = plt.subplots(1, len(names), figsize=(style.WIDTH, 3.3), sharey=True, squeeze=False)
    kinds = sorted({(arm == "full", rate, arm) for arm, rate in zip(curves.arm, curves.learning_rate)})
    markers = style.markers_of(results.arms)
    looks = {
        (arm, rate): dict(
            color=style.OKABE_ITO[i], marker=markers[arm], markersize=7 if full else 4, linestyle=style.dash(i)
        )
        for i, (full, rate, arm) in enumerate(kinds)
    }
    asked = {name: its["pass@1"].mean() + gain for name, its in curves[curves.step == 0].groupby("start")}
    shown = pd.concat([curves["pass@1"], pd.Series(asked, dtype=float)]).to_frame()
    for ax, start in zip(axes[0], names):
        mine = curves[curves.start == start]
        for _, its in mine.groupby("cell"):
            ax.plot(its.step, its["pass@1"], linewidth=1.4, **looks[its.arm.iloc[0], its.learning_rate.iloc[0]])
        if len(mine):
            ax.axhline(asked[start], color="0.5", linestyle=":", linewidth=1.3)
        ax.set(title=f"start {start}", xlabel="step", ylim=style.limits(shown))
        style.say_if_empty(ax, mine)
    axes[0, 0].set_ylabel("greedy pass@1")
    key = [plt.Line2D([], [], label=f"{style.short(arm)}, {rate:g}", **looks[arm, rate]) for _, rate, arm in kinds]
    key.append(style.mark(f"base + {gain:g}", "0.5", linestyle=":", linewidth=1.3))
    style.legend(figure, key, len(key), title="arm, learning rate")
    return style.finish(figure, np.asarray(axes))
