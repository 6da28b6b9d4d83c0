"""The Explore page: every metric of every cell, chosen in the page itself, without a kernel.

`book/_static/live.js` builds the choosers, keeps the choice in the address, and draws; here is what it chooses from.
"""

import html
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lrd.report import figures, style
from lrd.report.display import Html, page as address, table
from lrd.report.figures import live
from lrd.report.text import arm_name
from lrd.results import Results

FIRST = "pass@1"  # the metric that is drawn at first, and where no script runs
ENDS = {"last": "last", "least": "min", "most": "max"}


def page(studies: Sequence[Results]) -> Html:
    """The choosers' place, figure and table of the first preset, and the data of all."""
    first = studies[0]
    cells, label = rows(first), style.METRICS[FIRST]
    frame = first.measured(FIRST)[["cell", "step", "value"]]
    frame = frame.merge(cells, on="cell").merge(ends(first, FIRST), on="cell")
    drawn = figures.every_cell(frame, label, first.regimes, first.arms)._repr_mimebundle_()["text/html"]
    data = "".join(
        f"<script type='application/json' data-preset='{html.escape(found.preset)}'>{_json(choices(found))}</script>"
        for found in studies
    )
    shown = cells.merge(ends(first, FIRST), on="cell", how="left")
    links = [Html(f"<a href='{row.href}'>{row.cell}</a>") if row.href else row.cell for row in shown.itertuples()]
    numbers = [[_text(row[name]) for name in ENDS] for row in shown.to_dict("records")]
    head = ["cell", "state", "last", "smallest", "largest"]
    listed = table(head, [(link, state, *text) for link, state, text in zip(links, shown.state, numbers)])
    return Html(f"<div id='lrd-explore'><form></form>{drawn}<div class='lrd-cells'>{listed}</div>{data}</div>")


def rows(found: Results) -> pd.DataFrame:
    """What the page knows of each cell that was begun, finished or not, and where its page is."""
    cells = found.cells[found.cells.state != "absent"]
    where = [address(found, row.cell) if row.page else None for row in cells.itertuples()]
    frame = cells[["cell", "regime", "arm", "seed", "state"]]
    return frame.assign(name=cells.arm.map(style.short), href=pd.Series(where, cells.index, dtype=object))


def ends(found: Results, metric: str) -> pd.DataFrame:
    """A cell's last, least and largest value of a metric: one row a cell that has any."""
    by_cell = found.measured(metric).sort_values("step").groupby("cell", as_index=False)
    return by_cell.value.agg(**{name: how for name, how in ENDS.items()}) if len(found.cells) else pd.DataFrame()


def choices(found: Results) -> dict[str, Any]:
    """All of a preset: its cells, what can be chosen, and each metric over the steps, one list of values a cell."""
    cells = rows(found)
    seeds = sorted(cells.seed.unique().tolist())
    return {
        "rewards": [[name, name] for name in found.regimes],
        "arms": [[arm, arm_name(arm)] for arm in found.arms],
        "seeds": [[str(seed), str(seed)] for seed in seeds],
        "colours": live.colours_of(found.arms).to_dict()["scale"],
        "cells": cells.astype(object).where(cells.notna(), None).to_dict("records"),
        "metrics": {name: its for name in style.METRICS if (its := _curves(found, name, list(cells.cell)))["steps"]},
    }


def _curves(found: Results, metric: str, cells: list[str]) -> dict[str, Any]:
    """Values in four digits, null where a cell has none at a step."""
    wide = found.measured(metric).pivot_table(index="cell", columns="step", values="value").reindex(cells)
    values = [[float(f"{v:.4g}") if v == v else None for v in row] for row in wide.to_numpy(float).tolist()]
    return {"title": style.METRICS[metric], "steps": [int(step) for step in wide.columns], "values": values}


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _text(value: float) -> str:
    return f"{value:.3g}" if value == value else "–"
