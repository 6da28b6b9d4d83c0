"""Every figure of the study: a function takes a frame and returns a Figure, so that notebooks and tests draw the same.

One style. A colour means a regime and a marker an arm, everywhere; where several regimes share an axis each has its own
dash too, so that they can be told apart in grey.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from lrd.results import Results, estimates_at

if TYPE_CHECKING:  # a cell's own notebook needs neither
    from lrd.analysis.equivalence import Contrast
    from lrd.analysis.law import Measured
    from lrd.analysis.onset import LeadLag
    from lrd.analysis.timings import Bench

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
OF_A_CELL = ("reward", "advantage_std", "kl", "completions/mean_length", "completions/clipped_ratio")


def cell_curves(steps: pd.DataFrame, evals: pd.DataFrame) -> Figure:
    """One cell over its steps: pass@1 on held-out problems, then the metrics of its training batches."""
    figure, grid = plt.subplots(2, 3, figsize=(WIDTH, 4.6), sharex=True)
    axes = grid.flat
    if len(evals):
        curve = evals.groupby("step").correct.agg(["mean", "count"])
        error = (curve["mean"] * (1 - curve["mean"]) / curve["count"]) ** 0.5
        axes[0].errorbar(curve.index, curve["mean"], error, color="0.15", marker="o", markersize=4, capsize=2)
        axes[0].axhline(curve["mean"].iloc[0], color="0.5", linestyle=":")
        axes[0].annotate("base", (1, curve["mean"].iloc[0]), (0, 2), **_AT_RIGHT)
    axes[0].set(ylim=(-0.02, 1.02), ylabel="greedy pass@1 ± s.e.")
    for ax, key in zip(axes[1:], OF_A_CELL):
        if key in steps:
            ax.plot(steps.step, steps[key], color="0.15", linewidth=1.1)
        ax.set_ylabel(METRICS[key])
    axes[5].set_ylim(-0.02, 1.02)
    for ax in grid[1]:
        ax.set_xlabel("step")
    return _finish(figure, grid)


_AT_RIGHT = dict(
    xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="bottom", fontsize=8.5, color="0.35"
)


def rank_curves(results: Results, value: str = "final", label: str = "final pass@1") -> Figure:
    """A statistic of each cell against its LoRA rank, one panel a regime, with full fine-tuning's band and the base.

    Small marks are seeds; large ones their mean ± sd. The band is full fine-tuning's mean ± sd.
    """
    figure, axes = _panels(results.regimes, 3.0)
    ranks = [arm for arm in results.arms if arm != "full"]
    markers = markers_of(results.arms)
    low, high = _limits(results.finished[["base", value]])
    for ax, regime in zip(axes, results.regimes):
        colour = colour_of(regime, results)
        cells = results.finished[results.finished.regime == regime]
        full = cells[cells.arm == "full"][value]
        if len(full):
            spread = full.std() if len(full) > 1 else 0.0
            ax.axhspan(full.mean() - spread, full.mean() + spread, color=colour, alpha=0.16, linewidth=0)
            ax.axhline(full.mean(), color=colour, linewidth=1.2, linestyle=(0, (5, 2)))
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
        _say_if_empty(ax, cells)
    if len(axes):
        axes[0].set_ylabel(label)
        key = [
            plt.Line2D([], [], color="0.25", marker="o", linewidth=1, label="mean ± sd over seeds"),
            plt.Rectangle((0, 0), 1, 1, color="0.8", label="full fine-tuning, mean ± sd"),
            plt.Line2D([], [], color="0.4", linestyle=":", linewidth=1.3, label="base model"),
        ]
        figure.legend(handles=key, loc="outside lower center", ncols=3)
    return _finish(figure, axes)


def learning_curves(results: Results) -> Figure:
    """Greedy pass@1 over the steps, one panel a regime, one line an arm (mean ± sd over seeds), the base dotted."""
    figure, axes = _panels(results.regimes, 3.3)
    curves, markers = results.of_finished(results.curves), markers_of(results.arms)
    shades = np.linspace(0.35, 1.0, max(1, len(results.arms) - 1))
    for ax, regime in zip(axes, results.regimes):
        mine = curves[curves.regime == regime]
        colour = np.array(plt.matplotlib.colors.to_rgb(colour_of(regime, results)))
        for i, arm in enumerate(results.arms):
            its = mine[mine.arm == arm]
            if not len(its):
                continue
            line = its.groupby("step")["pass@1"].agg(["mean", "std"]).fillna(0.0)
            shade = "0.1" if arm == "full" else 1 - shades[min(i, len(shades) - 1)] * (1 - colour)
            style = dict(marker=markers[arm], markersize=6 if arm == "full" else 4, linewidth=1.3, color=shade)
            ax.plot(line.index, line["mean"], linestyle="--" if arm == "full" else "-", **style)
            ax.fill_between(line.index, line["mean"] - line["std"], line["mean"] + line["std"], color=shade, alpha=0.08)
        if len(mine):
            ax.axhline(mine[mine.step == 0]["pass@1"].mean(), color="0.4", linestyle=":", linewidth=1.3)
        ax.set(title=regime, xlabel="step", ylim=(-0.02, 1.02))
        _say_if_empty(ax, mine)
    if len(axes):
        axes[0].set_ylabel("greedy pass@1")
        greys = [str(0.85 - 0.7 * s) for s in shades]
        key = [
            plt.Line2D(
                [], [], marker=markers[arm], linewidth=1.3, markersize=6 if arm == "full" else 4,
                color="0.1" if arm == "full" else greys[min(i, len(greys) - 1)],
                linestyle="--" if arm == "full" else "-", label=_short(arm),
            )
            for i, arm in enumerate(results.arms)
        ]  # fmt: skip
        key.append(plt.Line2D([], [], color="0.4", linestyle=":", linewidth=1.3, label="base"))
        figure.legend(
            handles=key, loc="outside lower center", ncols=min(len(key), 7), columnspacing=1.2, handlelength=1.8
        )
    return _finish(figure, axes)


def sweep(results: Results, axis: str, chosen: Mapping[str, float], label: str) -> Figure:
    """Pass@1 over the steps, mean over seeds: one panel an arm, one line a value of `axis`, the chosen one bold.

    A thin grey line is the base.
    """
    rows, columns = -(-len(results.arms) // 3), 3
    figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, 2.4 * rows), sharex=True, sharey=True, squeeze=False)
    panels, rest = grid.flat[: len(results.arms)], grid.flat[len(results.arms) :]
    for ax in rest:
        ax.remove()
    curves, values = results.of_finished(results.curves), sorted(results.cells[axis].unique())
    shades = plt.get_cmap("viridis")(np.linspace(0.9, 0.0, len(values)))
    for ax, arm in zip(panels, results.arms):
        mine = curves[curves.arm == arm]
        ax.axhline(mine["pass@1"][mine.step == 0].mean(), color="0.6", linewidth=0.8)
        for i, value in enumerate(values):
            line = mine[mine[axis] == value].groupby("step")["pass@1"].mean()
            width = 2.6 if chosen.get(arm) == value else 1.1
            ax.plot(line.index, line, color=shades[i], linestyle=DASHES[i % len(DASHES)], linewidth=width)
        ax.set(title=_short(arm), ylim=(-0.02, 1.02))
        _say_if_empty(ax, mine)
    for ax in panels[-columns:]:  # the lowest of each column
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    for ax in grid[:, 0]:
        ax.set_ylabel("greedy pass@1")
    _legend_of_lines(figure, shades, [f"{v:g}" for v in values], title=label)
    return _finish(figure, panels)


def _legend_of_lines(figure: Figure, shades: np.ndarray, names: list[str], title: str | None = None) -> None:
    """What lines mean that differ by shade and, in grey, by dash."""
    key = [plt.Line2D([], [], color=shade, linestyle=DASHES[i % len(DASHES)]) for i, shade in enumerate(shades)]
    figure.legend(key, names, title=title, loc="outside lower center", ncols=len(key))


def law(rewards: Mapping[str, "Measured | None"]) -> Figure:
    """Bits learned at the last evaluation against trained parameters: a panel a reward, a line a codebook.

    Dots are replicates, the line their mean, its star full fine-tuning; dotted is all there is to know, grey one bit a
    parameter.
    """
    figure, axes = plt.subplots(1, len(rewards), figsize=(WIDTH, 3.2), sharex=True, sharey=True, squeeze=False)
    known = [m for m in rewards.values() if m is not None]
    shades = plt.get_cmap("viridis")(np.linspace(0.75, 0.0, max([len(m.information) for m in known], default=1)))
    least = max(1, min([m.bits[..., -1].min() for m in known], default=1))
    for ax, (regime, m) in zip(axes[0], rewards.items()):
        ax.set(title=regime, xlabel="trained parameters", xscale="log", yscale="log")
        _say_if_empty(ax, [] if m is None else m.arms)
        if m is None:
            continue
        bits = np.maximum(m.bits[..., -1], 1)  # what is less than a bit, or negative, lies on the floor
        ax.plot(m.parameters, m.parameters, color="0.8", linewidth=1)
        for i, information in enumerate(m.information):
            ax.axhline(information, color=shades[i], linestyle=":", linewidth=1)
            ax.plot(np.tile(m.parameters, (m.n, 1)), bits[:, :, i], ".", color=shades[i], markersize=3, alpha=0.6)
            mean = bits[:, :, i].mean(0)
            ax.plot(m.parameters, mean, color=shades[i], linestyle=DASHES[i % len(DASHES)])
            ax.plot(m.parameters[-1:], mean[-1:], FULL_MARKER, color=shades[i], markersize=9)
        ax.set_ylim(0.7 * least, 2 * m.information.max())
    axes[0, 0].set_ylabel("bits learned")
    if known:
        _legend_of_lines(figure, shades, [f"{information:,.0f} bits to learn" for information in known[0].information])
    return _finish(figure, axes)


def repairs(frame: pd.DataFrame) -> Figure:
    """Peak advantage std and final pass@1 under each repair, none in grey: a mark a cell, a bar the adapters' mean."""
    names = list(frame.intervention.unique())
    markers = markers_of(list(frame.sort_values("rank").arm.unique()))  # full fine-tuning, without a rank, last
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.3 + 0.27 * max(len(names), 3)), sharey=True, squeeze=False)
    for ax, (value, label) in zip(axes[0], (("magnitude", "peak advantage std"), ("final", "final pass@1"))):
        _say_if_empty(ax, names)
        for cell in frame.itertuples():
            colour, size = "0.4" if cell.intervention == "none" else OKABE_ITO[1], 7 if cell.arm == "full" else 4
            at = names.index(cell.intervention)
            ax.plot(getattr(cell, value), at, markers[cell.arm], color=colour, markersize=size, alpha=0.55)
        for i, mean in enumerate(frame[frame["rank"].notna()].groupby("intervention")[value].mean().reindex(names)):
            ax.plot([mean, mean], [i - 0.32, i + 0.32], color="0.15", linewidth=2)
        ax.set_xlabel(label)
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylabel("repair")
    axes[0, 0].invert_yaxis()
    key = [plt.Line2D([], [], color="0.4", marker=m, linestyle="", label=_short(arm)) for arm, m in markers.items()]
    figure.legend(handles=key, loc="outside lower center", ncols=max(1, len(key)))
    return _finish(figure, axes)


def over_steps(
    results: Results,
    metrics: tuple[str, ...] = ("advantage_std", "completions/mean_length", "completions/clipped_ratio"),
) -> Figure:
    """Training metrics over the steps, one panel a metric, one line a regime: median and 10–90 % range of its cells."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.9), sharex=True, squeeze=False)
    steps = results.of_finished(results.steps)
    for ax, metric in zip(axes[0], metrics):
        for i, regime in enumerate(results.regimes):
            mine = steps[steps.regime == regime]
            if metric in mine and len(mine):
                table = mine.groupby("step")[metric].quantile([0.1, 0.5, 0.9]).unstack()
                colour = colour_of(regime, results)
                ax.fill_between(table.index, table[0.1], table[0.9], color=colour, alpha=0.15, linewidth=0)
                ax.plot(table.index, table[0.5], color=colour, linestyle=DASHES[i % len(DASHES)], label=regime)
        ax.set(xlabel="step", ylabel=METRICS.get(metric, metric))
        _say_if_empty(ax, steps)
    if axes[0, 0].get_legend_handles_labels()[0]:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, handlelength=2.6)
    return _finish(figure, axes)


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
    if seeds is not None:
        frame = frame[frame.seed.isin(seeds)]
    first, last = steps or ((frame.step.min(), frame.step.max()) if len(frame) else (0, 1))
    frame, pitch = frame[frame.step.between(first, last)], 1.12 * max(last - first, 1)  # arms stand that far apart
    figure, axes = plt.subplots(
        max(1, len(rows)), 1, figsize=(WIDTH, 0.8 + 1.25 * max(1, len(rows))), sharex=True, squeeze=False
    )
    for ax, regime in zip(axes[:, 0], rows):
        mine = frame[frame.regime == regime]
        for cell, its in mine[mine.arm.isin(arms)].groupby("cell"):
            x = arms.index(its.arm.iloc[0]) * pitch + its.step - first
            ax.plot(
                x, its.value, "-" if cell in finished else ":", color=colour_of(regime, results), linewidth=1, alpha=0.8
            )
        for i in range(1, len(arms)):
            ax.axvline(i * pitch - 0.06 * (last - first), color="0.8", linewidth=0.8)
        low, high = (mine.value.min(), mine.value.max()) if mine.value.any() else (0.0, 1.0)  # a range, if all are 0
        ax.set(title=regime, ylim=(min(1.05 * low, -0.03 * high), max(1.05 * high, -0.03 * low)))  # zero is in sight
        ax.tick_params(axis="x", length=0)
        _say_if_empty(ax, mine, "nothing is measured")
    axes[-1, 0].set_xticks(
        [i * pitch + (last - first) / 2 for i in range(len(arms))],
        [_short(arm) for arm in arms],
    )
    axes[-1, 0].set_xlim(-0.06 * (last - first), max(1, len(arms)) * pitch - 0.06 * (last - first))
    axes[-1, 0].set_xlabel(f"each arm from step {first:.0f} to step {last:.0f}")
    figure.supylabel(METRICS.get(metric, metric), fontsize=10)
    sns.despine(figure)
    return figure


def differences(results: Results, found: "Mapping[str, Mapping[str, Contrast]]", margin: float) -> Figure:
    """Every rank minus full fine-tuning, one panel a regime: mean, 90 % (thick) and 95 % intervals, the margin's band.

    The equivalence test passes where the thick interval lies within the band.
    """
    ranks = [arm for arm in results.arms if arm != "full"]
    figure, axes = _panels(results.regimes, 0.34 * len(ranks) + 1.4)
    markers = markers_of(results.arms)
    for ax, regime in zip(axes, results.regimes):
        colour, mine = colour_of(regime, results), found.get(regime, {})
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
        _say_if_empty(ax, list(mine), "nothing to compare")
    reach = max([abs(end) for arms in found.values() for c in arms.values() for end in c.interval()], default=0.0)
    reach = 1.08 * max(reach, 1.6 * margin)
    for ax in axes:
        ax.set_xlim(-reach, reach)
    return _finish(figure, axes)


def onset_order(results: Results, onsets: pd.DataFrame, signals: list[str]) -> Figure:
    """Onset steps of each cell, the chain downwards, one panel a regime; the bar is where the onset must lie.

    A line joins the onsets of a cell, the wide tick is their median.
    """
    figure, axes = _panels(results.regimes, 3.4)
    for ax, regime in zip(axes, results.regimes):
        mine, colour = onsets[onsets.regime == regime], colour_of(regime, results)
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
        _say_if_empty(ax, mine)
        if len(mine):
            _say_if_empty(ax, [o for name in signals for o in mine[name] if o is not None], "no onset in any cell")
    return _finish(figure, axes)


def lead_lag(results: Results, leads: "Mapping[str, Mapping[tuple[str, str], LeadLag]]") -> Figure:
    """Lead–lag correlations, one panel a link, one line a regime: mean over cells with its 95 % interval."""
    pairs = list(dict.fromkeys(pair for mine in leads.values() for pair in mine))
    figure, axes = plt.subplots(1, max(1, len(pairs)), figsize=(WIDTH, 3.0), sharey=True, squeeze=False)
    for ax, pair in zip(axes[0], pairs):
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
        drawn = []
        for i, (regime, mine) in enumerate(leads.items()):
            curve = mine[pair]
            if curve.cells < 2:  # one cell has no interval to be judged by
                continue
            drawn.append(regime)
            colour = colour_of(regime, results)
            ax.fill_between(curve.lags, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
            ax.plot(curve.lags, curve.mean, color=colour, linestyle=DASHES[i % len(DASHES)], label=regime)
        ax.set(title=f"{pair[0]} →\n{pair[1]}", xlabel="lag (steps)", ylim=(-1.05, 1.05))
        _say_if_empty(ax, drawn, "fewer than\ntwo cells")
    axes[0, 0].set_ylabel("correlation of changes")
    handles = {label: handle for ax in axes[0] for handle, label in zip(*ax.get_legend_handles_labels())}
    if handles:
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, handlelength=2.6)
    return _finish(figure, axes)


def budget(ours: pd.DataFrame, theirs: pd.DataFrame, results: Results) -> Figure:
    """Bits delivered against capacity, one point a cell, the line where they are equal; `theirs` hollow, bounds only.

    Takes the frames of `budget.cells` and `budget.scale`. Above the line more is sent than two bits a parameter hold.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.2), sharex=True, sharey=True)
    markers = markers_of(results.arms)
    frames = pd.concat([frame[["capacity", "at_most", "measured"]] for frame in (ours, theirs)])
    (left, right), (low, high) = _decades(frames.capacity), _decades(pd.concat([frames.at_most, frames.measured]))
    ends = [min(left, low), max(right, high)]
    for ax, value, title in zip(axes, ("at_most", "measured"), ("at most, by the bounds", "measured")):
        ax.fill_between(ends, ends, ends[0], color="0.95", linewidth=0, zorder=0)
        ax.plot(ends, ends, color="0.35", linewidth=1.1, zorder=1)
        for frame, filled in ((theirs, False), (ours, True)):
            for row in frame[frame[value] > 0].itertuples():
                known = row.regime in results.regimes
                colour = colour_of(row.regime, results) if known else "0.4"
                marker = markers.get(row.arm, "o")
                fill = FILLS[results.regimes.index(row.regime) % len(FILLS)] if filled and known else "none"
                ax.plot(
                    row.capacity, getattr(row, value), marker, markersize=9 if marker == FULL_MARKER else 6.5,
                    color=colour, fillstyle=fill, markerfacecoloralt="white", markeredgewidth=0.8 if filled else 1.1,
                )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high), title=title, xlabel="capacity (bits)")
        ax.text(0.97, 0.42, "room for all that is delivered:\na flat curve decides nothing", transform=ax.transAxes,
                ha="right", va="center", fontsize=8.5, color="0.35")  # fmt: skip
        ax.text(0.03, 0.97, "more than is held", transform=ax.transAxes, va="top", fontsize=8.5, color="0.35")
        _say_if_empty(ax, ours[ours[value] > 0])
    axes[0].set_ylabel("delivered by a run (bits)")
    key = [
        plt.Line2D([], [], color=colour_of(r, results), marker="o", linestyle="", markersize=8, label=r,
                   fillstyle=FILLS[i % len(FILLS)], markerfacecoloralt="white")
        for i, r in enumerate(results.regimes)
    ]  # fmt: skip
    key += [
        plt.Line2D([], [], color="0.3", marker=markers[arm], linestyle="", markersize=9 if arm == "full" else 6,
                   label=_short(arm))
        for arm in results.arms
    ]  # fmt: skip
    key.append(
        plt.Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor="none", label="the report's scale")
    )
    figure.legend(handles=key, loc="outside lower center", ncols=5, columnspacing=1.2, handlelength=1.6)
    sns.despine(figure)
    return figure


def _decades(values: pd.Series) -> tuple[float, float]:
    """Limits of a logarithmic axis with room on both sides."""
    found = values[values > 0]
    return (found.min() / 5, found.max() * 5) if len(found) else (1.0, 1e4)


def step_times(bench: "Bench | None") -> Figure:
    """Seconds of a step by part, one bar a measured row; the line is the roofline at the card's own rates."""
    rows = bench.rows if bench else pd.DataFrame()
    figure, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.3 * max(3, len(rows))))
    parts = list(bench.parts.columns) if bench else []
    shades = dict(zip(parts, sns.color_palette("YlGnBu", max(1, len(parts)))))
    for y, row in enumerate(rows.itertuples() if bench else []):
        left = 0.0
        for part, colour in shades.items():
            seconds = bench.parts[part].iloc[y] if bench else np.nan
            if seconds > 0:
                ax.barh(y, seconds, left=left, color=colour, height=0.72, linewidth=0)
                left += seconds
        ax.barh(y, row.step - left, left=left, color="0.8", height=0.72, linewidth=0)  # not told apart
        ax.text(row.step, y, f" {row.step:.1f}", va="center", fontsize=9)
    if bench and (least := sum(bench.roofline.values())):
        ax.axvline(least, color="0.1", linestyle=":", linewidth=1.2)
        ax.text(least, -0.7, f" roofline {least:.1f}", fontsize=8.5, va="bottom")
    labels = [
        f"{row.who} · {row.regime}, {'FullFT' if row.arm == 'full' else f'rank {row.arm[1:]}'}, "
        f"{row.completion_tokens:,.0f} tokens"
        for row in rows.itertuples()
    ]
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlabel="seconds a step", ylim=(len(labels) - 0.4, -1.1 if labels else 0))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    _say_if_empty(ax, rows, "nothing measured yet")
    if shades:
        key = [plt.Line2D([], [], color=colour, linewidth=6, label=part) for part, colour in shades.items()]
        key.append(plt.Line2D([], [], color="0.8", linewidth=6, label="not told apart"))
        figure.legend(handles=key, loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.2)
    sns.despine(figure, left=True)
    return figure


def data_flow(results: Results) -> Figure:
    """One step as boxes and arrows: from prompts to rollouts, deposits, advantages, the loss, and back to the weights.

    Beside each regime's name stand the tokens of two completions; those that it deposits on are filled.
    """
    figure, ax = plt.subplots(figsize=(WIDTH, 4.3))
    ax.set(xlim=(0, 100), ylim=(0, 51))
    ax.axis("off")

    def box(x: float, y: float, width: float, height: float, title: str, text: str, **style: Any) -> None:
        style = {"edgecolor": "0.35", "facecolor": "white", "linewidth": 1.0} | style
        ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1", **style))
        ax.text(x + width / 2, y + height - 2.8, title, ha="center", va="center", fontsize=9.5, weight="bold")
        ax.text(x + width / 2, y + (height - 4) / 2, text, ha="center", va="center", fontsize=8.5, linespacing=1.35)

    def arrow(*points: tuple[float, float], **style: Any) -> None:
        xs, ys = zip(*points)
        ax.plot(xs[:-1], ys[:-1], color="0.25", linewidth=1.1, solid_capstyle="butt", **style)
        ax.annotate("", points[-1], points[-2], arrowprops=dict(arrowstyle="-|>", color="0.25", shrinkA=0, shrinkB=0))

    box(0, 33, 15, 16, "prompts", "P a step, the same\nfor all cells\nof a seed")
    box(20, 33, 17, 16, "sampler", "G completions of\neach prompt, from\nthese very weights")
    box(42, 33, 16, 16, "rollouts", "N = P·G\ncompletions of at\nmost T tokens")
    box(0, 4, 15, 16, "weights", "an adapter of\nrank r, or all")
    box(20, 4, 15, 16, "AdamW", "one update\na rollout")
    box(
        40,
        4,
        20,
        16,
        "loss",
        r"clipped ratio to $\pi_{old}$" "\n" r"and $\beta\cdot$KL to the" "\n" r"reference $\pi_{ref}$",
    )
    box(
        65,
        4,
        35,
        16,
        "advantages",
        "deposits normalized within a prompt;\ndense: as they are\nsparse: summed from here to the end",
    )
    ax.add_patch(
        FancyBboxPatch((64, 24.5), 36, 25, boxstyle="round,pad=0,rounding_size=1", facecolor="0.95", edgecolor="0.35")
    )
    ax.text(82, 46.9, "one reward deposits", ha="center", va="center", fontsize=9.5, weight="bold")
    ends = [(5, 9), (2, 6)]  # last tokens of the steps of two completions
    patterns = {
        "outcome": [{9}, {6}],
        "process": [set(e) for e in ends],
        "distillation": [set(range(10)), set(range(7))],
    }
    for i, regime in enumerate(results.regimes[:3]):
        y = 41.6 - 7 * i
        ax.text(65.5, y, regime, va="center", fontsize=9)
        for row, (length, filled) in enumerate(zip((10, 7), patterns.get(regime, [set(), set()]))):
            for t in range(length):
                style = dict(facecolor=colour_of(regime, results) if t in filled else "white", edgecolor="0.45")
                ax.add_patch(plt.Rectangle((80.5 + 1.85 * t, y + 0.25 - 2.1 * row), 1.45, 1.6, linewidth=0.7, **style))
    arrow((15, 41), (20, 41))
    arrow((37, 41), (42, 41))
    arrow((58, 41), (64, 41))
    arrow((82, 24.5), (82, 20))
    arrow((65, 12), (60, 12))
    arrow((40, 12), (35, 12))
    arrow((20, 12), (15, 12))
    arrow((7.5, 20), (7.5, 26.5), (28.5, 26.5), (28.5, 33))
    arrow((50, 33), (50, 20))
    ax.text(8.5, 24.2, "the next step's", fontsize=8.5, color="0.3")
    ax.text(51, 26.5, r"log $\pi_\theta$, log $\pi_{ref}$" "\nof every token", va="center", fontsize=8.5, color="0.3")
    return figure


def colour_of(regime: str, results: Results) -> str:
    """The regime's colour, by its place in the matrix."""
    return OKABE_ITO[results.regimes.index(regime) % len(OKABE_ITO)]


def markers_of(arms: list[str]) -> dict[str, str]:
    """One marker an arm; the star is full fine-tuning."""
    return {arm: FULL_MARKER if arm == "full" else MARKERS[i % len(MARKERS)] for i, arm in enumerate(arms)}


def _short(arm: str) -> str:
    """The arm's name where there is little room."""
    return "FullFT" if arm == "full" else f"rank {arm[1:]}"


def _panels(regimes: list[str], height: float) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(1, max(1, len(regimes)), figsize=(WIDTH, height), sharey=True, squeeze=False)
    return figure, axes[0]


def _limits(values: pd.DataFrame) -> tuple[float, float]:
    """All of [0, 1] for a share; no panel hides where zero is."""
    top = values.max(axis=None) if len(values) else np.nan
    return -0.03, 1.03 if not top > 1 else 1.05 * float(top)


def _say_if_empty(ax: Axes, rows: pd.DataFrame | list, text: str = "no finished cell") -> None:
    if not len(rows):
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="0.45")


def _finish(figure: Figure, axes: np.ndarray) -> Figure:
    for ax in np.asarray(axes).flat:
        if "step" in (ax.get_xlabel() or "step"):
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    sns.despine(figure)
    return figure


def pass_at_k(frame: pd.DataFrame) -> Figure:
    """Unbiased pass@k against k for each model of a baseline, ± standard error over problems; greedy as a bar."""
    figure, ax = plt.subplots(figsize=(WIDTH / 2, 2.8))
    estimates = estimates_at(frame)
    greedy: Any = frame[frame["sample"] == "greedy"].groupby("model").correct.mean()
    for i, model in enumerate(sorted(frame.model.unique())):
        means = [values[model].mean() for values in estimates.values()]
        errors = [values[model].sem() for values in estimates.values()]
        style = {"color": str(0.55 * i), "linestyle": DASHES[i], "marker": MARKERS[i]}
        ax.errorbar(list(estimates), means, errors, capsize=2, markersize=5, label=model, **style)
        ax.plot(1, greedy[model], marker="_", markersize=14, markeredgewidth=2, color=style["color"], linestyle="")
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(estimates), [str(k) for k in estimates])
    ax.set(xlabel="samples a problem, k", ylabel="pass@k (bar: greedy)", ylim=(0, 1))
    ax.legend()
    sns.despine(figure)
    return figure


def token_maps(tokens: list[str], rows: dict[str, dict[str, list[float]]]) -> Figure:
    """Values on the tokens of one completion: reward → name → one value a token, NaN where nothing stands.

    Each row has a scale of its own, symmetric about zero, since rewards differ in size; it stands beside the row.
    """
    flat = [(regime, name, np.array(values, float)) for regime, those in rows.items() for name, values in those.items()]
    figure, axes = plt.subplots(len(flat), 1, figsize=(WIDTH, 0.2 * len(flat) + 0.7), sharex=True)
    for ax, (regime, name, values) in zip(np.atleast_1d(axes), flat):
        scale = np.nanmax(np.abs(values), initial=0.0) or 1.0
        ax.imshow(values[None], aspect="auto", cmap="PuOr", vmin=-scale, vmax=scale, interpolation="nearest")
        ax.set_yticks([0], [f"{regime} · {name}"])
        ax.tick_params(length=0)
        ax.grid(False)
        ax.text(1.005, 0.5, f"±{scale:.2g}", transform=ax.transAxes, va="center", fontsize=8)
        for spine in ax.spines.values():
            spine.set_color("0.8")
    words = [token.replace("\n", "⏎").replace("$", r"\$") for token in tokens]
    np.atleast_1d(axes)[-1].set_xticks(range(len(words)), words, rotation=90, fontsize=8 if len(words) < 70 else 6)
    return figure
