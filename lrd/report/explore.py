"""Picking cells, metrics and steps by hand: widgets for a live notebook. The book draws the same figure without them.

A widget needs a kernel, and its JavaScript would come from elsewhere; `figures.every_cell` needs neither.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.core.pylabtools import print_figure
from IPython.display import display as show
from matplotlib.figure import Figure

from lrd.report import figures
from lrd.report.display import Html, page, table
from lrd.report.text import NOTHING, arm_name
from lrd.results import Results

FIRST = "pass@1"  # the metric that is drawn at first


def panel(found: Results) -> widgets.Widget:
    """Choosers for regimes, arms, seeds, metrics and steps, above the figures and the table of what is chosen."""
    last = int(max(found.steps.step.max(), found.evals.step.max())) if len(found.steps) and len(found.evals) else 1
    metrics = [name for name in figures.METRICS if len(found.measured(name))] or [FIRST]
    choosers = {
        "regimes": _several("regimes", [(name, name) for name in found.regimes]),
        "arms": _several("arms", [(arm_name(arm), arm) for arm in found.arms]),
        "seeds": _several("seeds", [(str(seed), seed) for seed in sorted(found.cells.seed.unique().tolist())]),
        "metrics": _several("metrics", [(figures.METRICS[name], name) for name in metrics], [FIRST]),
        "steps": widgets.IntRangeSlider(value=(0, last), min=0, max=last, description="steps"),
    }
    *lists, steps = choosers.values()
    shown = widgets.interactive_output(lambda **chosen: draw(found, **chosen), choosers)
    return widgets.VBox([widgets.HBox(lists, layout={"flex_flow": "row wrap"}), steps, shown])


def draw(found: Results, metrics: tuple[str, ...], **chosen: Any) -> None:
    """Shows the figure of each metric, then what the chosen cells were in the chosen steps."""
    for metric in metrics:
        figure = figures.every_cell(found, metric, **chosen)
        show(figure)
        plt.close(figure)  # a notebook would show it a second time
    show(within(found, metrics, **chosen))


def within(
    results: Results,
    metrics: Sequence[str],
    regimes: Sequence[str],
    arms: Sequence[str],
    seeds: Sequence[int],
    steps: tuple[int, int],
) -> Html:
    """The chosen cells in the chosen steps: of each metric its last value, and the least and the largest in brackets.

    Links lead to the executed notebooks themselves, as a live notebook has no pages.
    """
    cells = results.cells
    texts: dict[str, dict[str, str]] = {}
    for metric in metrics:
        frame = results.measured(metric)
        by_cell = frame[frame.step.between(*steps)].sort_values("step").groupby("cell").value
        ends = by_cell.agg(["last", "min", "max"]).itertuples()
        texts[metric] = {cell: f"{last:.3g} ({low:.3g} to {high:.3g})" for cell, last, low, high in ends}
    rows = []
    for row in cells[cells.regime.isin(regimes) & cells.arm.isin(arms) & cells.seed.isin(seeds)].itertuples():
        link = f"<a href='{page(results, row.cell).replace('.html', '.ipynb')}'>{row.cell}</a>"
        values = [texts[metric].get(row.cell, NOTHING) for metric in metrics]
        rows.append((Html(link) if row.page else row.cell, row.state, *values))
    return table(["cell", "state", *metrics], rows)


def one_open(drawn: Mapping[str, tuple[Figure, str]]) -> Html:
    """Title → figure and caption, behind titles of which one is open at a time, in the book and in a live notebook.

    Closes the figures.
    """
    parts = []
    for title, (figure, caption) in drawn.items():
        image = base64.b64encode(str(print_figure(figure, "svg")).encode()).decode()
        plt.close(figure)
        caption = html.escape(caption)
        parts.append(
            f"<details name='lrd-figures'{'' if parts else ' open'}><summary>{html.escape(title)}</summary><figure>"
            f"<img src='data:image/svg+xml;base64,{image}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"
            f"</details>"
        )
    return Html("".join(parts))


def _several(name: str, options: list[tuple[str, Any]], value: list[Any] | None = None) -> widgets.SelectMultiple:
    """A list to choose any number from; all at first, unless said otherwise."""
    return widgets.SelectMultiple(
        options=options,
        value=[v for _, v in options] if value is None else value,
        description=name,
        rows=max(3, min(len(options), 8)),
    )
