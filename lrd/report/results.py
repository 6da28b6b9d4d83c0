"""The results page: what it glues, and its tables with every regime, arm and seed."""

import html
from typing import Any

import numpy as np
import pandas as pd

from lrd.analysis import budget
from lrd.analysis.stats import below_base, paired
from lrd.report.answer import magnitude, problems, stability
from lrd.report.display import Html, page, table
from lrd.report.text import NBSP, NOTHING, arm_name, difference, mean_sd
from lrd.results import Results


def glued(results: Results) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    return {
        "problems": problems(results),
        "base": mean_sd(results.finished.base.drop_duplicates()),
        "stability": stability(results),
        "magnitude": magnitude(results),
    }


def outcome_table(results: Results, published: dict[str, Any]) -> Html:
    """The study in one table: final and peak pass@1 of every regime and arm, the published value, a link a seed."""
    head = "".join(f"<th>{html.escape(regime)}</th>" for regime in results.regimes)
    body = ""
    for arm in results.arms:
        cells = "".join(f"<td>{_arm_cell(results, published, regime, arm)}</td>" for regime in results.regimes)
        body += f"<tr><th>{arm_name(arm)}{_size(results, arm)}</th>{cells}</tr>"
    return Html(
        f"<table class='lrd-table lrd-outcomes'><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def difference_table(results: Results) -> Html:
    """Every rank against full fine-tuning: final pass@1, paired by seed, with its 95 % interval over seeds."""
    *ranks, full = results.arms
    rows = []
    for arm in ranks:
        found = [paired(results.finished, regime, arm, full) for regime in results.regimes]
        rows.append((arm_name(arm), *map(difference, found)))
    return table([f"minus {arm_name(full)}", *results.regimes], rows)


def regime_table(results: Results, published: dict[str, Any]) -> Html:
    """What became of each regime's cells: peak, final, how many end below the base, advantages beside the published."""
    rows, below = [], below_base(results)
    for regime in results.regimes:
        cells = results.finished[results.finished.regime == regime]
        low, n = below.get(regime, (0, 0))
        theirs = published.get("peak_advantage_std", {}).get(regime)
        rows.append(
            (
                regime,
                _mean_sd(cells.peak),
                _mean_sd(cells.final),
                f"{low} of {n}",
                _mean_sd(cells.peak_advantage_std, 2),
                "none" if theirs is None else f"{theirs:.2f}",
            )
        )
    head = ["regime", "peak pass@1", "final pass@1", "below the base", "peak advantage std", "published"]
    return table(head, rows)


def _size(results: Results, arm: str) -> str:
    """What an arm trains and can hold, beneath its name; nothing where none of its cells says."""
    sizes = results.cells[results.cells.arm == arm].trainable_parameters.dropna().unique()
    if not len(sizes):
        return ""
    held = ", ".join(f"{size:,.0f} parameters, {budget.capacity(size):,.0f} bits" for size in sorted(sizes))
    return f"<br><small>{held}</small>"


def _arm_cell(results: Results, published: dict[str, Any], regime: str, arm: str) -> str:
    cells = results.cells[(results.cells.regime == regime) & (results.cells.arm == arm)]
    done = results.finished[results.finished.cell.isin(cells.cell)]
    theirs = published.get("pass_at_1", {}).get(regime, {})
    value = theirs.get(arm)
    report = f"{value[0]:.3f}{NBSP}±{NBSP}{value[1]:.3f} ({theirs['statistic']})" if value else "none"
    seeds = " ".join(_seed(results, row) for row in cells.itertuples())
    lines = [
        f"<span class='lrd-main'>{_mean_sd(done.final)}</span>",
        f"<span class='lrd-row'><i>peak</i> {_mean_sd(done.peak)}</span>",
        f"<span class='lrd-row'><i>published</i> {report}</span>",
        f"<span class='lrd-row lrd-seeds'><i>seeds</i> {seeds}</span>",
    ]
    return "".join(lines)


def _seed(results: Results, row: Any) -> str:
    """A seed as a link to its cell's page, or with the state that explains why there is none."""
    state = "" if row.state == "finished" else f" {row.state}"
    if not row.page:
        return f"<span title='{row.cell}: {row.state}'>{row.seed}{state or ' no page'}</span>"
    return f"<a href='{page(results, row.cell)}' title='{row.cell}: {row.state}'>{row.seed}{state}</a>"


def _mean_sd(values: pd.Series, digits: int = 3) -> str:
    text = mean_sd(values.replace([np.inf, -np.inf], np.nan), digits)
    return Html(f"<span class='lrd-none'>{text}</span>") if text == NOTHING else text
