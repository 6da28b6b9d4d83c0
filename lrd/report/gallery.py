"""The gallery: every cell of every preset that was run as a row, paged, sorted and filtered in the page by itself.

itables carries DataTables with it; `init_notebook_mode(connected=False)` in the notebook puts it into the page.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from itables import JavascriptFunction, options, to_html_datatable

from lrd import results
from lrd.report import style
from lrd.report.display import Html, page
from lrd.report.text import arm_name
from lrd.results import Results

options.warn_on_undocumented_option = False  # it does not know DataTables' `orderFixed`
DIGITS = {"base": 3, "final": 3, "peak": 3, "area": 3, "adv. std": 2, "seconds": 1, "CPU s": 1}
LISTED = ["preset", "arm", "student", "state", "hardware"]  # few values: each gets a list to choose from
WIDTH, HEIGHT = 96, 24  # of a sparkline, pixels


def table(studies: Sequence[Results], runs: str | Path | None = None) -> Html:
    """One row a cell, in its matrix's order; a click on a column's head sorts, its list and the search filter.

    Rows stand below their preset, and only those of one page at a time are in the document.
    """
    shown = pd.concat([rows(found, runs) for found in studies], ignore_index=True)
    # Categories sort in their own order: rank 4 before rank 16.
    arms = sorted({arm for found in studies for arm in found.arms}, key=lambda arm: (arm == "full", len(arm), arm))
    shown["cell"] = pd.Categorical(shown["cell"], categories=shown["cell"], ordered=True)
    shown["arm"] = pd.Categorical(shown["arm"], categories=[_arm(arm) for arm in arms])
    by = list(shown.columns).index("preset")
    # Everything in the frame is escaped or made here.
    text = to_html_datatable(
        shown,
        table_id="lrd-gallery",
        connected=False,
        allow_html=True,
        display_logo_when_loading=False,
        paging=True,
        pageLength=50,
        lengthMenu=[50, 200, 1000],
        deferRender=True,
        rowGroup={"dataSrc": by, "startRender": _heading(studies)},
        orderFixed={"pre": [[by, "asc"]]},
        maxBytes=0,
        columnDefs=[*_definitions(list(shown.columns)), {"targets": by, "render": _in_order(studies)}],
        text_in_header_can_be_selected=False,  # a click on it sorts
        autoWidth=False,
        classes="lrd-table lrd-gallery nowrap",
        style="width:100%",
        layout={"topStart": "info", "topEnd": "search", "bottomStart": "pageLength", "bottomEnd": "paging"},
    )
    return Html(f"<div class='lrd-scroll'>{text}</div>")


def _heading(studies: Sequence[Results]) -> JavascriptFunction:
    """What stands above a preset's rows: its name, and how many of its cells are finished of all."""
    texts = {f.preset: f"{f.preset}: {len(f.finished)} of {len(f.cells)} cells finished" for f in studies}
    return JavascriptFunction(f"function (rows, preset) {{ return {texts}[preset] ?? preset; }}")


def _in_order(studies: Sequence[Results]) -> JavascriptFunction:
    """Sorts presets as they are given, not by their names."""
    places = {found.preset: place for place, found in enumerate(studies)}
    return JavascriptFunction(f"function (preset, type) {{ return type === 'sort' ? {places}[preset] : preset; }}")


def _definitions(columns: list[str]) -> list[dict[str, Any]]:
    """How DataTables shows, sorts and filters the columns."""
    numbers = [
        {"targets": columns.index(name), "render": _fixed(digits), "type": "num", "className": "dt-right"}
        for name, digits in DIGITS.items()
    ]
    return [
        *numbers,
        {"targets": [columns.index(name) for name in LISTED if name in columns], "columnControl": [["searchList"]]},
        {"targets": columns.index("pass@1"), "orderable": False},
        {"targets": columns.index("hardware"), "className": "lrd-hardware"},
    ]


def rows(found: Results, runs: str | Path | None = None) -> pd.DataFrame:
    """What the gallery shows of a preset: HTML, text, and numbers as numbers; what was not measured is NaN or empty."""
    regimes, arms = found.regimes, found.arms
    cells = found.cells.assign(r=found.cells.regime.map(regimes.index), a=found.cells.arm.map(arms.index))
    cells = cells.sort_values(["r", "a", *found.axes, "seed"])
    records = [results.read_provenance(results.root(runs) / found.preset / name) for name in cells.cell]
    curves, top = dict(list(found.curves.groupby("cell"))), found.curves["pass@1"].max()
    links = [_link(found, row) for row in cells.itertuples()]
    return pd.DataFrame(
        {
            "cell": links,
            "preset": found.preset,
            "arm": [_arm(arm) for arm in cells.arm],
            "pass@1": [
                sparkline(curves.get(row.cell), style.colour_of(row.regime, found), top) for row in cells.itertuples()
            ],
            "final": cells.final.to_numpy(float),
            "peak": cells.peak.to_numpy(float),
            "base": cells.base.to_numpy(float),
            "area": cells.area.to_numpy(float),
            "adv. std": cells.peak_advantage_std.to_numpy(float),
            "student": [html.escape(str(results.recorded_models(record).get("student", ""))[:8]) for record in records],
            "state": cells.state.to_list(),
            "seconds": cells.train_seconds.to_numpy(float),
            "CPU s": np.array([cpu_seconds(record) for record in records], float),
            "hardware": [html.escape(hardware(record)) for record in records],
        }
    )


def sparkline(curve: pd.DataFrame | None, colour: str = "currentColor", top: float = 1.0) -> str:
    """A cell's pass@1 over its steps as inline SVG, from 0 at the bottom to `top`; a dotted line is its base."""
    if curve is None or not len(curve):
        return ""
    steps, values = curve.step.to_numpy(float), curve["pass@1"].to_numpy(float)
    x = 3 + (WIDTH - 6) * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    y = 2 + (HEIGHT - 4) * (1 - values / (top or 1.0))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    said = f"pass@1 {values[0]:.3f} at step {steps[0]:.0f}, {values[-1]:.3f} at step {steps[-1]:.0f}"
    return (
        f"<svg class='lrd-spark' role='img' aria-label='{said}' width='{WIDTH}' height='{HEIGHT}' "
        f"viewBox='0 0 {WIDTH} {HEIGHT}'><title>{said}</title>"
        f"<path d='M0 {y[0]:.1f}H{WIDTH}' stroke='currentColor' stroke-dasharray='1 3' opacity='.5'/>"
        f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.8' stroke-linejoin='round'/>"
        f"<circle cx='{x[-1]:.1f}' cy='{y[-1]:.1f}' r='2.4' fill='{colour}'/></svg>"
    )


def cpu_seconds(record: dict[str, Any]) -> float:
    """CPU time of all of a cell's sessions; NaN where one of them was killed before it could say."""
    sessions = record.get("sessions")
    parts = [s.get("cpu_seconds") for s in sessions if isinstance(s, dict)] if isinstance(sessions, list) else []
    return float(sum(parts)) if parts and all(isinstance(part, int | float) for part in parts) else np.nan


def hardware(record: dict[str, Any]) -> str:
    """What a cell ran on: its device where that is no CPU, the processor, its cores and memory."""
    about, run = (part if isinstance(part, dict) else {} for part in (record.get("hardware"), record.get("run")))
    device = run.get("device")
    parts = [str(device)] if device not in (None, "cpu") else []
    if about.get("cpu"):
        parts.append(str(about["cpu"]).replace("(R)", "").replace("(TM)", ""))
    if about.get("cores"):
        parts.append(f"{about['cores']} cores")
    if about.get("memory_gib"):
        parts.append(f"{about['memory_gib']} GiB")
    return ", ".join(parts)


def _link(found: Results, row: Any) -> str:
    name, whole = html.escape(row.cell), html.escape(f"{found.preset}/{row.cell}")
    if not row.page:
        return f"<span title='{whole}'>{name}</span>"
    return f"<a href='{html.escape(page(found, row.cell))}' title='{whole}'>{name}</a>"


def _arm(arm: str) -> str:
    return html.escape("full" if arm == "full" else arm_name(arm))


def _fixed(digits: int) -> JavascriptFunction:
    """Shows a number with its digits and a dash for none, and sorts none below all."""
    return JavascriptFunction(
        "function (value, type) {"
        " const there = typeof value === 'number' && isFinite(value);"
        f" if (type === 'display' || type === 'filter') return there ? value.toFixed({digits}) : '–';"
        " return there ? value : -Infinity; }"
    )
