"""How it is done: the flow of a step and its seconds."""

from typing import TYPE_CHECKING, Any

import altair as alt
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lrd.report import style
from lrd.report.figures import live
from lrd.results import Results

if TYPE_CHECKING:
    from lrd.analysis.timings import Bench

NORMALIZED = "deposits normalized within a prompt;\ndense: as they are\nsparse: summed from here to the end"
BOXES = (  # of `data_flow`: left, bottom, width, title and text; each is 16 high
    (0, 33, 15, "prompts", "P a step, the same\nfor all cells\nof a seed"),
    (20, 33, 17, "sampler", "G completions of\neach prompt, from\nthese very weights"),
    (42, 33, 16, "rollouts", "N = P·G\ncompletions of at\nmost T tokens"),
    (0, 4, 15, "weights", "an adapter of\nrank r, or all"),
    (20, 4, 15, "AdamW", "one update\na rollout"),
    (40, 4, 20, "loss", "clipped ratio to $\\pi_{old}$\nand $\\beta\\cdot$KL to the\nreference $\\pi_{ref}$"),
    (65, 4, 35, "advantages", NORMALIZED),
)
ARROWS = (
    ((15, 41), (20, 41)),
    ((37, 41), (42, 41)),
    ((58, 41), (64, 41)),
    ((82, 24.5), (82, 20)),
    ((65, 12), (60, 12)),
    ((40, 12), (35, 12)),
    ((20, 12), (15, 12)),
    ((7.5, 20), (7.5, 26.5), (28.5, 26.5), (28.5, 33)),
    ((50, 33), (50, 20)),
)
LENGTHS = (10, 7)  # tokens of the two completions that are drawn
DEPOSITED = {  # reward → tokens of each that it deposits on; steps end at 5 and 9, and at 2 and 6
    "outcome": ({9}, {6}),
    "process": ({5, 9}, {2, 6}),
    "distillation": (set(range(10)), set(range(7))),
}


def data_flow(results: Results) -> Figure:
    """One step as boxes and arrows: from prompts to rollouts, deposits, advantages, the loss, and back to the weights.

    Beside each regime's name stand the tokens of two completions; those that it deposits on are filled.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 4.3))
    ax.set(xlim=(0, 100), ylim=(0, 51))
    ax.axis("off")
    for x, y, width, title, text in BOXES:
        _box(ax, x, y, width, 16, linewidth=1.0, facecolor="white")
        ax.text(x + width / 2, y + 13.2, title, ha="center", va="center", fontsize=9.5, weight="bold")
        ax.text(x + width / 2, y + 6, text, ha="center", va="center", fontsize=8.5, linespacing=1.35)
    _box(ax, 64, 24.5, 36, 25, facecolor="0.95")
    ax.text(82, 46.9, "one reward deposits", ha="center", va="center", fontsize=9.5, weight="bold")
    for i, regime in enumerate(results.regimes[:3]):
        y = 41.6 - 7 * i
        ax.text(65.5, y, regime, va="center", fontsize=9)
        for row, (length, filled) in enumerate(zip(LENGTHS, DEPOSITED.get(regime, (set(), set())))):
            for t in range(length):
                look = dict(facecolor=style.colour_of(regime, results) if t in filled else "white", edgecolor="0.45")
                at = 80.5 + 1.85 * t, y + 0.25 - 2.1 * row
                ax.add_patch(plt.Rectangle(at, 1.45, 1.6, linewidth=0.7, **look))
    for points in ARROWS:
        xs, ys = zip(*points)
        ax.plot(xs[:-1], ys[:-1], color="0.25", linewidth=1.1, solid_capstyle="butt")
        ax.annotate("", points[-1], points[-2], arrowprops=dict(arrowstyle="-|>", color="0.25", shrinkA=0, shrinkB=0))
    ax.text(8.5, 24.2, "the next step's", fontsize=8.5, color="0.3")
    ax.text(51, 26.5, r"log $\pi_\theta$, log $\pi_{ref}$" "\nof every token", va="center", fontsize=8.5, color="0.3")
    return figure


def _box(ax: Axes, x: float, y: float, width: float, height: float, **look: Any) -> None:
    """A rounded rectangle with its lower left corner at (x, y)."""
    shape = "round,pad=0,rounding_size=1"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, edgecolor="0.35", **look))


def step_times(bench: "Bench | None") -> live.Live:
    """Seconds of a step by part, one bar a measured row; the line is the roofline at the card's own rates."""
    if bench is None or not len(bench.rows):
        return live.nothing("nothing measured yet")
    rows, rest = [], "not told apart"
    for (_, row), (_, parts) in zip(bench.rows.iterrows(), bench.parts.iterrows()):
        name = f"{row.who} · {row.regime}, {style.short(row.arm)}, {row.completion_tokens:,.0f} tokens"
        told = {part: float(seconds) for part, seconds in parts.items() if seconds > 0}
        told[rest] = max(0.0, row.step - sum(told.values()))
        rows += [
            {"row": name, "part": part, "place": place, "seconds": seconds, "step": row.step}
            for place, (part, seconds) in enumerate(told.items())
        ]
    shades = [to_hex(colour) for colour in sns.color_palette("YlGnBu", len(bench.parts.columns))]
    scale = alt.Scale(domain=[*bench.parts.columns, rest], range=[*shades, "#ccc"])
    chosen = alt.selection_point("chosen", fields=["part"], bind="legend")
    y = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=260))
    every = alt.Chart(alt.Data(values=rows)).transform_filter(chosen)
    bars = every.mark_bar().encode(
        x=alt.X("seconds:Q", title="seconds a step"), y=y, color=alt.Color("part:N", scale=scale, title=None),
        order="place:Q", tooltip=live.tips(row="", part="", seconds="seconds", step="whole step"),
    )  # fmt: skip
    total = alt.Text("sum(seconds):Q", format=".1f")
    totals = every.mark_text(align="left", dx=3).encode(total, x="sum(seconds):Q", y=y)
    layers = [bars.add_params(chosen), totals]
    if least := sum(bench.roofline.values()):
        rule = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[2, 3], description="least that the card allows")
        layers.append(rule.encode(x=alt.datum(least)))
    return live.Live(alt.layer(*layers).properties(width=420, height=alt.Step(20)))
