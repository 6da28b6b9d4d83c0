"""What notebooks show as HTML: a cell's configuration, its completions coloured by their deposits, the study's tables.

Model output is data: it is escaped before it meets the page. Tables lead to the pages of the cells they summarize.
"""

import html
from collections import Counter
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lrd.analysis import budget
from lrd.cell import Cell
from lrd.presets import read_preset
from lrd.results import Results

GOOD, BAD = (0, 114, 178), (213, 94, 0)  # blue and vermilion: told apart with any colour vision, and in grey
VISIBLE = {"\n": "⏎\n", "\t": "⇥"}


class Html(str):
    """A piece of HTML that Jupyter shows as such."""

    def _repr_html_(self) -> str:
        return self

    def __repr__(self) -> str:
        return f"<HTML, {len(self):,} characters>"  # a notebook keeps both, and nobody reads markup


def glue(prefix: str = "", /, **values: Any) -> None:
    """Stores what a notebook would show of each value, for the page's sentences and figures, and closes figures.

    Each is named by `prefix` and its keyword.
    """
    from myst_nb import glue as store  # here, so that a cell's own notebook does not need it

    for name, value in values.items():
        store(prefix + name, value, display=False)
        if isinstance(value, Figure):
            plt.close(value)


def glue_declared(*presets: str) -> None:
    """Question, prediction and statistic of presets, as `law_small_question`; glued text is shown as it is."""
    for preset in presets:
        about = read_preset(preset)["about"]
        glue(f"{preset.replace('-', '_')}_", **{name: str(text).replace("`", "") for name, text in about.items()})


def config_table(cell: Cell) -> Html:
    """Every setting of the cell, resolved, and below them what it trains."""
    trained = budget.trained_parameters(cell)
    sizes = {"parameters": trained, "capacity (bits)": budget.capacity(trained)}
    rows = "".join(
        f"<tr><td style='text-align:left'><code>{html.escape(key)}</code></td>"
        f"<td style='text-align:left'>{html.escape(repr(value))}</td></tr>"
        for key, value in cell.config.items()
    ) + "".join(
        f"<tr><td style='text-align:left'>trained {name}</td>"
        f"<td style='text-align:left'>{number_or_dash(value, 0)}</td></tr>"
        for name, value in sizes.items()
    )
    return Html(
        f"<details open><summary>{html.escape(cell.name)}</summary><table class='lrd-table'>{rows}</table></details>"
    )


def completions(rows: Sequence[dict[str, Any]]) -> Html:
    """Logged completions, each token coloured by its deposit; the strongest colour is the largest deposit shown.

    Hovering over a token tells its deposit and its advantage. Tokens without a deposit stay uncoloured.
    """
    if not rows:
        return Html("<p>No completions were logged.</p>")
    deposits = [r for row in rows for r, on in zip(row["token_rewards"], row["deposit_mask"]) if on and r is not None]
    scale = max((abs(r) for r in deposits), default=0.0) or 1.0
    return Html("".join(_completion(row, scale) for row in rows))


def page(results: Results, cell: str) -> str:
    """Address of a cell's page, from a page of `notebooks/` or `book/`."""
    return f"../runs/{results.preset}/{cell}/cell.html"


def link(results: Results, cell: str) -> str:
    """A cell's name, leading to its page where it has one."""
    if not bool(results.cells.page[results.cells.cell == cell].any()):
        return cell
    return Html(f"<a href='{html.escape(page(results, cell))}'>{html.escape(cell)}</a>")


def folded(summary: str, body: str) -> Html:
    """A piece of HTML behind a line that opens it."""
    return Html(f"<details><summary>{html.escape(summary)}</summary>{body}</details>")


def bullets(sentences: Sequence[str]) -> Html:
    """A list of sentences, escaped."""
    return Html(f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in sentences)}</ul>")


def number_or_dash(value: Any, digits: int) -> str:
    """With so many digits behind the point, and a dash for what is no number or not finite."""
    return f"{value:,.{digits}f}" if isinstance(value, int | float) and np.isfinite(value) else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A plain table; everything is escaped, the first column names the row, HTML pieces stay as they are."""

    def shown(value: Any) -> str:
        return value if isinstance(value, Html) else html.escape(str(value))

    top = "".join(f"<th>{shown(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th>{shown(first)}</th>{''.join(f'<td>{shown(value)}</td>' for value in rest)}</tr>"
        for first, *rest in rows
    )
    return Html(f"<table class='lrd-table'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def missing(results: Results) -> Html:
    """What the pages rest on: cells by state, and every gap or fault with its cell and reason."""
    counts = Counter(results.cells.state)
    states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    cells = results.cells[(results.cells.state == "finished") & ~results.cells.page.astype(bool)].cell
    elsewhere = f" Executed elsewhere, and so without a page here: {', '.join(cells)}." if len(cells) else ""
    if not results.problems:
        how = f", {n} of them published as a table" if (n := counts["published"]) else " and readable"
        return Html(
            f"<p>Reported here: preset <code>{results.preset}</code>. All {len(results.cells)} cells are finished{how}."
            f"{elsewhere}</p>"
        )
    items = "".join(f"<li>{_linked(results, text)}</li>" for text in results.problems)
    used = "finished and published" if counts["published"] else "finished"
    return Html(
        f"<div class='lrd-missing'><p>Reported here: preset <code>{results.preset}</code>. Of {len(results.cells)} "
        f"cells: {states}. Numbers and figures rest on the {used} ones.{elsewhere}</p>"
        f"<details{' open' if len(results.problems) <= 12 else ''}>"
        f"<summary>What is missing or unreadable ({len(results.problems)})</summary><ul>{items}</ul></details></div>"
    )


def _linked(results: Results, problem: str) -> str:
    name, _, text = problem.partition(": ")
    has_page = bool(results.cells.page[results.cells.cell == name].any())
    shown = f"<a href='{page(results, name)}'>{name}</a>" if has_page else f"<b>{html.escape(name)}</b>"
    return f"{shown}: {html.escape(text)}"


def _completion(row: dict[str, Any], scale: float) -> str:
    verdict = f"gold {html.escape(row['answer'] or '')} · {'correct' if row['correct'] else 'wrong'}"
    verdict = "no gold answer" if row["answer"] is None else verdict
    cut = ", cut at the cap" if row["truncated"] else ""
    deposited = [r or 0.0 for r, on in zip(row["token_rewards"], row["deposit_mask"]) if on]
    head = (
        f"step {row['step']} · {html.escape(row['problem'])} · {verdict}{cut} · "
        f"{len(deposited)} deposits, sum {sum(deposited):.3g}"
    )
    tokens = zip(row["tokens"], row["token_rewards"], row["deposit_mask"], row["advantages"])
    body = "".join(_token(*token, scale) for token in tokens)
    return (
        f"<div style='margin:.6em 0'><small>{head}</small>"
        f"<pre style='white-space:pre-wrap;margin:0;line-height:1.7'>{body}</pre></div>"
    )


def _token(text: str, reward: float | None, deposited: bool, advantage: float | None, scale: float) -> str:
    shown = html.escape("".join(VISIBLE.get(c, c) for c in text))
    tip = f"advantage {_number(advantage)}"
    if not deposited:
        return f"<span title='{tip}'>{shown}</span>"
    red, green, blue = GOOD if (reward or 0) >= 0 else BAD
    alpha = 0.08 + 0.6 * min(abs(reward or 0) / scale, 1)
    style = f"background:rgba({red},{green},{blue},{alpha:.2f});border-bottom:2px solid rgb({red},{green},{blue})"
    return f"<span style='{style}' title='deposit {_number(reward)}, {tip}'>{shown}</span>"


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3g}"
