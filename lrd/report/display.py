"""What notebooks show as HTML: a cell's configuration, its completions coloured by their deposits, the study's tables.

Model output is data: it is escaped before it meets the page. Tables lead to the pages of the cells they summarize.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.core.getipython import get_ipython
from IPython.core.pylabtools import print_figure
from IPython.display import publish_display_data
from matplotlib.figure import Figure

from lrd.analysis import budget, timings
from lrd.analysis.stats import below_base, paired
from lrd.cell import Cell, read_preset
from lrd.report.text import NBSP, NOTHING, arm_name, interval, mean_sd, signed
from lrd.results import Results, pass_at_k

GOOD, BAD = (0, 114, 178), (213, 94, 0)  # blue and vermilion: told apart with any colour vision, and in grey
VISIBLE = {"\n": "⏎\n", "\t": "⇥"}


class Html(str):
    """A piece of HTML that Jupyter shows as such."""

    def _repr_html_(self) -> str:
        return self

    def __repr__(self) -> str:
        return f"<HTML, {len(self):,} characters>"  # a notebook keeps both, and nobody reads markup


def glue(prefix: str = "", /, **values: Any) -> None:
    """Stores what a notebook would show of each value, for the page's sentences and figures: `myst_nb.glue`, unseen.

    Each is named by `prefix` and its keyword. Figures are closed, so that the notebook shows none a second time. Its
    own function imports the whole of Sphinx, in every notebook anew; a test compares the two.
    """
    kind = "application/papermill.record/"
    for name, value in values.items():
        shown, about = get_ipython().display_formatter.format(value)  # pyright: ignore[reportOptionalMemberAccess]
        about["scrapbook"] = {"name": prefix + name, "mime_prefix": kind}
        publish_display_data({kind + mime: data for mime, data in shown.items()}, metadata=about)
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


def one_open(figures: Mapping[str, tuple[Figure, str]]) -> Html:
    """Title → figure and caption, behind titles of which one is open at a time, in the book and in a live notebook.

    Closes the figures.
    """
    parts = []
    for title, (figure, caption) in figures.items():
        image = base64.b64encode(str(print_figure(figure, "svg")).encode()).decode()
        plt.close(figure)
        caption = html.escape(caption)
        parts.append(
            f"<details name='lrd-figures'{'' if parts else ' open'}><summary>{html.escape(title)}</summary><figure>"
            f"<img src='data:image/svg+xml;base64,{image}' alt='{caption}'><figcaption>{caption}</figcaption></figure>"
            f"</details>"
        )
    return Html("".join(parts))


def difference_table(results: Results) -> Html:
    """Every rank against full fine-tuning: final pass@1, paired by seed, with its 95 % interval over seeds."""
    *ranks, full = results.arms
    rows = []
    for arm in ranks:
        found = [paired(results.finished, regime, arm, full) for regime in results.regimes]
        texts = [f"{signed(d.mean)}{interval(d)}" if d else NOTHING for d in found]
        rows.append((arm_name(arm), *texts))
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
    chosen = cells[cells.regime.isin(regimes) & cells.arm.isin(arms) & cells.seed.isin(seeds)]
    texts: dict[str, dict[str, str]] = {}
    for metric in metrics:
        frame = results.measured(metric)
        by_cell = (
            frame[frame.step.between(*steps)].sort_values("step").groupby("cell").value.agg(["last", "min", "max"])
        )
        texts[metric] = {
            cell: f"{last:.3g} ({low:.3g} to {high:.3g})" for cell, last, low, high in by_cell.itertuples()
        }
    rows = []
    for row in chosen.itertuples():
        link = f"<a href='{page(results, row.cell).replace('.html', '.ipynb')}'>{row.cell}</a>"
        values = [texts[metric].get(row.cell, NOTHING) for metric in metrics]
        rows.append((Html(link) if row.page else row.cell, row.state, *values))
    return table(["cell", "state", *metrics], rows)


def budget_table(frame: pd.DataFrame) -> Html:
    """Bits delivered beside bits held: means over seeds, one row a regime and arm, from `lrd.analysis.budget`."""
    rows, known = [], bool(frame.measured.notna().any())
    regimes, pairs = list(frame.regime), dict.fromkeys(zip(frame.regime, frame.arm))
    for regime, arm in sorted(pairs, key=lambda pair: regimes.index(pair[0])):
        mine = frame[(frame.regime == regime) & (frame.arm == arm)]
        rows.append((f"{regime}, {arm_name(arm)}", *_bits(mine.mean(numeric_only=True))[: 6 if known else 4]))
    head = ["", "parameters", "capacity", "at most", "of capacity", "measured", "of capacity"]
    return table(head if known else head[:5], rows)


def _bits(row: Any) -> list[str]:
    whole = {name: number_or_dash(row[name], 0) for name in ("parameters", "capacity", "at_most", "measured")}
    share = {name: budget.times(row[name]) if row[name] >= 0 else "–" for name in ("largest_ratio", "ratio")}
    return [*list(whole.values())[:3], share["largest_ratio"], whole["measured"], share["ratio"]]


def bullets(sentences: Sequence[str]) -> Html:
    """A list of sentences, escaped."""
    return Html(f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in sentences)}</ul>")


def budget_cells(results: Results, frame: pd.DataFrame) -> Html:
    """The same for every cell, with what its bits are made of; folded, and each row leads to its cell."""
    rows = []
    for row in frame.itertuples():
        numbers = [row.parameters, row.episodes, row.deposits, row.at_most, row.entropy, row.kl]
        shown = [number_or_dash(value, digits) for value, digits in zip(numbers, (0, 0, 1, 0, 0, 0))]
        ratios = [budget.times(value) if value >= 0 else "–" for value in (row.largest_ratio, row.ratio)]
        rows.append((link(results, row.cell), *shown, *ratios))
    head = "parameters,episodes,deposits an episode,at most,entropy,reverse KL,at most / capacity,measured / capacity"
    return folded(f"Every finished cell ({len(rows)})", table(["cell", *head.split(",")], rows))


def settings_table(cells: Sequence[Cell]) -> Html:
    """Every setting of a matrix; one that differs between cells shows its values and the cells that have each."""
    rows = []
    for key in cells[0].config:
        by_value: dict[str, list[Cell]] = {}
        for cell in cells:
            value = cell.config[key]
            listed = ", ".join(map(str, value)) or "all" if isinstance(value, list) else ""
            text = listed or ("full" if value is None else repr(value))
            by_value.setdefault(text, []).append(cell)
        if len(by_value) == 1 or key in ("regime", "rank", "seed"):
            shown = ", ".join(text.strip("'") for text in by_value)
        else:
            shown = "; ".join(f"{text} ({_which(those, cells)})" for text, those in by_value.items())
        rows.append((Html(f"<code>{key}</code>"), shown))
    return table(["setting", "value"], rows)


def _which(some: Sequence[Cell], cells: Sequence[Cell]) -> str:
    """The cells that share a value, by the one axis that tells them from the others, or by name."""
    for axis, name in (("arm", arm_name), ("regime", str), ("seed", lambda seed: f"seed {seed}")):
        values = list(dict.fromkeys(getattr(cell, axis) for cell in some))
        if len(some) == sum(getattr(cell, axis) in values for cell in cells):
            return ", ".join(map(name, values))
    return ", ".join(cell.name for cell in some)


def card_table(preset: str, card: dict[str, Any] | None, cell: Cell) -> Html:
    """The testbed's card: what each model is and can do; or where the preset's models come from."""
    if card is None:
        names = ", ".join(f"<code>{html.escape(name)}</code>" for name in (cell.student, cell.teacher, cell.prm))
        return Html(
            f"<p>There is no card of <code>{html.escape(preset)}</code>: its models ({names}) were not trained here. "
            f"<code>lrd testbed {html.escape(preset)}</code> trains those that lie below <code>models/</code>.</p>"
        )
    rows = []
    models = card.get("models", {})
    for model in sorted(models, key=["student", "teacher", "prm", "completer", *models].index):
        about = models[model]
        shape = card.get("recipe", {}).get(model, {}).get("shape", {})
        size = f"{shape['hidden_size']} wide, {shape['num_hidden_layers']} layers" if shape else "as the completer"
        scores = [number_or_dash(about.get(name), 3) for name in ("greedy", "pass@1", "pass@4", "pass@8")]
        steps = number_or_dash(about.get("held_out_step_accuracy"), 3)
        if "majority_step_accuracy" in about:
            steps += f" ({number_or_dash(about['majority_step_accuracy'], 3)})"
        rows.append((model, size, number_or_dash(about.get("parameters"), 0), *scores, steps))
    return table(["model", "shape", "parameters", "greedy", "pass@1", "pass@4", "pass@8", "steps"], rows)


def baseline_table(preset: str, frame: pd.DataFrame | None) -> Html:
    """Greedy pass@1 and pass@k of student and teacher, with a link to the notebook that measured them."""
    if frame is None:
        return Html(f"<p>Not measured yet: <code>lrd baseline {html.escape(preset)}</code> does.</p>")
    scores = pass_at_k(frame)
    rows = [(model, *values) for model, values in zip(scores.index, scores.to_numpy())]
    link = f"<p><a href='../runs/{html.escape(preset)}/baseline/baseline.html'>The notebook that measured them</a></p>"
    return Html(table(["model", *scores.columns], rows) + link)


def step_table(bench: timings.Bench | None) -> Html:
    """Seconds of a step and its parts, and peak memory, one row a measurement."""
    if bench is None:
        return Html("<p>Not measured yet: <code>lrd bench paper</code> does, on a GPU host.</p>")
    rows = []
    for row, parts in zip(bench.rows.itertuples(), bench.parts.to_numpy()):
        seconds = [number_or_dash(value, 2) for value in (row.step, *parts)]
        short = row.completion_tokens < bench.shapes["completion_tokens"]
        tokens = f", {row.completion_tokens:.0f} tokens" if short else ""
        name = f"{row.who}: {row.regime}, {arm_name(row.arm)}{tokens}"
        rows.append((name, *seconds, number_or_dash(row.peak_gib, 1)))
    return table(["who, regime, arm", "step (s)", *bench.parts.columns, "peak (GiB)"], rows)


def token_table(bench: timings.Bench | None) -> Html:
    """Milliseconds of a token of all rows, one row an engine."""
    if bench is None or not bench.tokens:
        return Html("<p>Not measured yet.</p>")
    head, rows = timings.token_rows(bench)
    return table(head, [(engine, *(number_or_dash(ms, 2) for ms in each)) for engine, *each in rows])


def cost_table(bench: timings.Bench | None, preset: str = "paper") -> Html:
    """GPU-hours of a preset's cells by regime and arm, and of all of them."""
    if bench is None:
        return Html("<p>Not known before a step has been measured.</p>")
    hours = timings.matrix_hours(bench, preset)
    rows = [
        (f"{row.regime}, {arm_name(row.arm)}", "" if row.measured else "≈", number_or_dash(row.step, 1),
         row.cells, number_or_dash(row.hours, 2))
        for row in hours.itertuples()
    ]  # fmt: skip
    total = ("all", "", "", hours.cells.sum(), number_or_dash(hours.hours.sum(skipna=False), 1))
    return table(["regime, arm", "", "step (s)", "cells", "GPU-hours"], [*rows, total])


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


def _mean_sd(values: pd.Series, digits: int = 3) -> str:
    text = mean_sd(values.replace([np.inf, -np.inf], np.nan), digits)
    return Html(f"<span class='lrd-none'>{text}</span>") if text == NOTHING else text


def _completion(row: dict[str, Any], scale: float) -> str:
    verdict = "correct" if row["correct"] else "wrong"
    cut = ", cut at the cap" if row["truncated"] else ""
    deposited = [r or 0.0 for r, on in zip(row["token_rewards"], row["deposit_mask"]) if on]
    head = (
        f"step {row['step']} · {html.escape(row['problem'])} · gold {html.escape(row['answer'])} · {verdict}{cut} · "
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
