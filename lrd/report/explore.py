"""Picking cells, metrics and steps by hand: widgets for a live notebook. The book draws the same figure without them.

A widget needs a kernel, and its JavaScript would come from elsewhere; `figures.every_cell` needs neither.
"""

from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from IPython.display import display as show

from lrd.report import display, figures
from lrd.report.text import arm_name
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
    show(display.within(found, metrics, **chosen))


def _several(name: str, options: list[tuple[str, Any]], value: list[Any] | None = None) -> widgets.SelectMultiple:
    """A list to choose any number from; all at first, unless said otherwise."""
    return widgets.SelectMultiple(
        options=options,
        value=[v for _, v in options] if value is None else value,
        description=name,
        rows=max(3, min(len(options), 8)),
    )
