"""Figures that answer a reader: a mark shows its cell and its numbers, a click opens its page, the legend filters.

They are Vega-Lite, drawn in the page by `book/_static/live.js` with the one runtime that `report.book` puts into the
site. Where no script runs, in print and in a paper the same figure stands as SVG.
"""

import base64
import functools
import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import matplotlib
import pandas as pd
import vl_convert
from matplotlib.colors import to_hex

from lrd.report import style
from lrd.results import Results

VEGALITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
PANEL = 190  # width and height of a panel, pixels; a page makes it as wide as there is room
TOUCH = "touch"  # of layers that only a pointer shows
IS_FULL = "datum.name == 'FullFT'"
CONFIG = {
    "background": "white",
    "font": "sans-serif",
    "axis": {"labelFontSize": 11, "titleFontSize": 11.5, "titleFontWeight": "normal", "gridColor": "#ebebeb"},
    "axisX": {"grid": False, "tickMinStep": 1},
    "header": {"labelFontSize": 12, "labelFontWeight": "bold", "labelAnchor": "start", "title": None},
    "legend": {"orient": "bottom", "labelFontSize": 11, "titleFontSize": 11, "symbolLimit": 40, "columns": 7},
    "view": {"stroke": None},
}


class Live:
    """A Vega-Lite chart as Jupyter and the book show it: its SVG, and its specification for the page's script."""

    def __init__(self, chart: Any):
        self.spec: dict[str, Any] = chart.configure(**CONFIG).to_dict()

    @functools.cached_property
    def svg(self) -> str:
        """The figure as it stands without a pointer."""
        return vl_convert.vegalite_to_svg(_still(self.spec), vl_version=VEGALITE)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        image = base64.b64encode(self.svg.encode()).decode()
        spec = json.dumps(self.spec, separators=(",", ":")).replace("<", "\\u003c")
        text = f"<div class='lrd-live'><img src='data:image/svg+xml;base64,{image}' alt=''>"
        text += f"<script type='application/json'>{spec}</script></div>"
        return {"text/html": text, "image/svg+xml": self.svg, "text/plain": "<figure>"}


def _still(spec: Any) -> Any:
    """The same without what needs a pointer: links, and the marks of the layers that only it shows."""
    if isinstance(spec, list):
        return [_still(each) for each in spec]
    if not isinstance(spec, dict):
        return spec
    found = {key: _still(value) for key, value in spec.items() if key != "href"}
    return found | {"transform": [{"filter": "false"}]} if str(spec.get("name", "")).startswith(TOUCH) else found


def nothing(text: str = "no finished cell") -> Live:
    """In place of a figure that has nothing to show."""
    return Live(alt.Chart(alt.Data(values=[{}])).mark_text(color="#777").encode(alt.TextValue(text)))


def cells_of(results: Results) -> pd.DataFrame:
    """What a mark of a finished cell says and where it leads: one row a cell."""
    cells = results.finished
    where = [f"../runs/{results.preset}/{row.cell}/cell.html" if row.page else None for row in cells.itertuples()]
    return cells.assign(href=where, name=cells.arm.map(style.short))


def colours_of(arms: Sequence[str]) -> alt.Color:
    """A shade a rank, darker for larger ones, full fine-tuning black; the names are those of `style.short`."""
    names, shades = [style.short(arm) for arm in arms], matplotlib.colormaps["viridis_r"]
    ranks = [arm for arm in arms if arm != "full"]
    range_ = [to_hex(shades(0.12 + 0.78 * i / max(1, len(ranks) - 1))) for i in range(len(ranks))] + ["#000000"]
    return alt.Color("name:N", title=None, scale=alt.Scale(domain=names, range=range_[: len(names)]))


def panels(
    layers: Sequence[Any], frame: pd.DataFrame, regimes: Sequence[str], height: int = PANEL, y: Any = "shared"
) -> Live:
    """The layers over one frame, a panel a regime; `y`: whether their range is `shared` or `independent`."""
    chart = alt.layer(*layers).properties(width=PANEL, height=height)
    plain = frame.astype(object).where(frame.notna(), None).to_dict("records")
    facet = alt.Facet("regime:N", sort=list(regimes), title=None)
    return Live(chart.facet(facet, columns=3, data=alt.Data(values=plain)).resolve_scale(y=y))


def tips(**titles: str) -> list[alt.Tooltip]:
    """Column and title of what a mark says of itself; one without a title is text, or a whole number."""
    return [
        alt.Tooltip(f"{name}:Q", title=title, format=".3~f") if title else alt.Tooltip(f"{name}:N")
        for name, title in titles.items()
    ]
