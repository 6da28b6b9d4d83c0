"""The results page: what it says of each reward, and its tables with every regime, arm and seed."""

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lrd.analysis import budget, fair, onset
from lrd.analysis.crossed import LEVEL, MARGIN, Contrast
from lrd.analysis.fair import FULL, WORLD, Compared
from lrd.analysis.stats import Verdict, below_base
from lrd.report.display import Html, page, table
from lrd.report.text import NBSP, NOTHING, arm_name, bracketed, counted, listed, mean_sd, percent, signed
from lrd.results import Results

READ_AT = {"chosen": "chosen step", "final": "last step", "area": "area"}
WHERE = {"chosen": "At the step that validation chose", "final": "At the last step", "area": "By area under the curve"}
VERDICTS = {
    Verdict.AHEAD: "ahead of full fine-tuning",
    Verdict.BEHIND: "behind full fine-tuning",
    Verdict.EQUIVALENT: "equivalent to full fine-tuning",
    Verdict.UNDECIDED: "undecided",
    Verdict.UNJUDGED: "not judged",
}


def glued(results: Results, compared: Compared, events: pd.DataFrame) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    below = ", ".join(f"{low} of {n} ({regime})" for regime, (low, n) in below_base(results).items())
    return {
        "problems": str(results.evals.problem.nunique()) if len(results.evals) else "the",
        "margin": f"{MARGIN:g}",
        "level": percent(LEVEL),
        "totals": totals(compared),
        "chosen": chosen(results),
        "gain": ", ".join(f"{signed(gain)} ({regime})" for regime, gain in fair.gains(results).items()) or NOTHING,
        "ranks": gradient(results, compared),
        "below": below or NOTHING,
        "order": order(events),
    }


def totals(compared: Compared) -> str:
    """How many comparisons have each verdict, by the first measure that there is, as sentences."""
    measure, rows = next(iter(compared.tables.items()))
    if not len(rows):
        return "No rank can be compared with full fine-tuning yet."
    counts = rows.verdict.value_counts()
    parts = [f"{counts.get(verdict, 0)} {name}" for verdict, name in VERDICTS.items()]
    text = f"{WHERE[measure]}, of {counted(len(rows), 'comparison')}: {', '.join(parts)}."
    open_ = rows[rows.verdict == Verdict.UNDECIDED]
    above, below = (open_.low > 0).sum(), (open_.high < 0).sum()
    if len(open_):
        text += (
            f" Undecided is not equal: before the correction for many comparisons, the interval of {above} of the "
            f"{len(open_)} undecided lies above zero and that of {below} below."
        )
    return text


def chosen(results: Results) -> str:
    """Why there is no chosen step, as a sentence; empty where there is one."""
    if "chosen" in fair.measures(results):
        return ""
    return f"Preset {results.preset} has no validation split, so no step is chosen on one."


def findings(results: Results, compared: Compared) -> list[str]:
    """What the verdicts are, one text a regime."""
    return [f"{regime}: {_finding(results, compared, regime)}" for regime in results.regimes]


def _finding(results: Results, compared: Compared, regime: str) -> str:
    mine = {m: rows[rows.regime == regime] for m, rows in compared.tables.items()}
    off = [(arm, rates) for (r, arm), rates in compared.off_rate.items() if r == regime and arm in results.arms]
    why = "".join(
        f" {arm_name(arm).capitalize()} trained at a learning rate of {used:g}; its sweep chose {best:g}."
        for arm, (best, used) in off
    )
    if not any(map(len, mine.values())):
        return f"no rank can be compared with full fine-tuning yet.{why}"
    if FULL in dict(off):
        spread = "; ".join(f"{READ_AT[m]} {_spread(rows)}" for m, rows in mine.items() if len(rows))
        return f"not judged.{why} Differences from it: {spread}."
    return " ".join(f"{WHERE[m]}, {_counts(rows)}." for m, rows in mine.items() if len(rows)) + why


def _counts(rows: pd.DataFrame) -> str:
    """`2 of 5 ranks are ahead of full fine-tuning (16, 256) and 3 undecided (1, 4, 64); differences +0.1 to +0.2`."""
    arms = {v: [arm[1:] for arm in rows.arm[rows.verdict == v]] for v in VERDICTS}
    arms = {v: names for v, names in arms.items() if names}
    if len(arms) == 1:
        (verdict,) = arms
        text = f"all {counted(len(rows), 'rank')} are {VERDICTS[verdict]}" if len(rows) > 1 else (
            f"rank {rows.arm.iloc[0][1:]} is {VERDICTS[verdict]}"
        )  # fmt: skip
    else:
        text = listed([f"{len(names)} of {len(rows)} ranks {_are(names)} {VERDICTS[v]} ({', '.join(names)})"
                       for v, names in arms.items()])  # fmt: skip
    return f"{text}; {'differences' if len(rows) > 1 else 'difference'} {_spread(rows)}"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _spread(rows: pd.DataFrame) -> str:
    low, high = signed(rows.difference.min()), signed(rows.difference.max())
    return low if low == high else f"{low} to {high}"


def comparison_rows(results: Results, compared: Compared) -> list[tuple[str, ...]]:
    """Measure and rank, then a column a regime: difference, interval, verdict."""
    rows = []
    for measure, frame in compared.tables.items():
        by_arm = {(row.regime, row.arm): row for row in frame.itertuples()}
        for arm in (arm for arm in results.arms if arm != FULL):
            each = [_compared(by_arm.get((regime, arm))) for regime in results.regimes]
            rows.append((READ_AT[measure], arm_name(arm), *each))
    return rows


def _compared(row: Any) -> str:
    if row is None:
        return NOTHING
    text = f"{signed(row.difference)} {bracketed(row.low, row.high)}"
    if row.verdict is Verdict.UNJUDGED:
        return Html(f"<span class='lrd-none'>{text}<br><small>not judged</small></span>")
    word = f"<b>{row.verdict.value}</b>" if row.verdict is not Verdict.UNDECIDED else row.verdict.value
    return Html(f"{text}<br><small>{word}, p{NBSP}{'<' if row.p < 0.001 else '='}{NBSP}{max(row.p, 0.001):.3f}</small>")


def slope_rows(results: Results, compared: Compared) -> list[tuple[str, ...]]:
    """Measure and regime: slope, change from the lowest to the highest rank, half-width and least margin of an arm."""
    rows = []
    for measure, frame in compared.tables.items():
        for regime in results.regimes:
            mine, slope = frame[frame.regime == regime], compared.slopes[measure].get(regime)
            shown = [f"{signed(s.mean, d)} {bracketed(*s.interval(), d)}" if s else NOTHING
                     for s, d in ((slope, 4), (_change(results, slope), 3))]  # fmt: skip
            rows.append((READ_AT[measure], regime, *shown, _median(mine.half), _median(mine.least_margin)))
    return rows


def _change(results: Results, slope: Contrast | None) -> Contrast | None:
    """The slope times the doublings between the lowest and the highest rank of the matrix."""
    if slope is None:
        return None
    ranks = results.cells["rank"].dropna()
    doublings = math.log2(ranks.max() / ranks.min())
    parts = tuple((variance * doublings**2, freedom) for variance, freedom in slope.parts)
    return Contrast(slope.mean * doublings, parts)


def gradient(results: Results, compared: Compared) -> str:
    """Whether accuracy changes with rank, by the first measure that there is, one sentence a regime."""
    measure, slopes = next(iter(compared.slopes.items()))
    ranks = [arm for arm in results.arms if arm != FULL]
    texts = []
    for regime, slope in slopes.items():
        change = _change(results, slope)
        assert change is not None
        low, high = change.interval()
        way = ("rises" if slope.mean > 0 else "falls") if slope.differs else "shows no significant slope"
        room = f"A change of more than {MARGIN:g} is {'' if max(-low, high) < MARGIN else 'not '}excluded"
        texts.append(
            f"Under {regime}, pass@1 {way}{' with rank' if slope.differs else ' over rank'}: "
            f"{signed(change.mean)} {bracketed(low, high)} from {arm_name(ranks[0])} to {arm_name(ranks[-1])}. {room}."
        )
    return f"{WHERE[measure]}: {' '.join(texts)}" if texts else "No slope over rank is known yet."


def _median(values: pd.Series) -> str:
    """`0.043 (0.032 to 0.106)`: median, least and largest."""
    if not len(values):
        return NOTHING
    return f"{values.median():.3f} ({values.min():.3f} to {values.max():.3f})"


def outcome_table(results: Results) -> Html:
    """Every regime and arm: pass@1 at the last and the chosen step, mean ± sd over cells, and a link a cell."""
    head = "".join(f"<th>{html.escape(regime)}</th>" for regime in results.regimes)
    at_chosen, body = fair.at_chosen(results), ""
    for arm in results.arms:
        cells = "".join(f"<td>{_arm_cell(results, at_chosen, regime, arm)}</td>" for regime in results.regimes)
        body += f"<tr><th>{arm_name(arm)}{_size(results, arm)}</th>{cells}</tr>"
    return Html(
        f"<table class='lrd-table lrd-outcomes'><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def base_table(results: Results) -> Html:
    """Pass@1 of the untrained model, by training of the student where there are several."""
    done = results.finished.dropna(subset="base")
    by_student = done.groupby(WORLD).base if WORLD in done else [("the student", done.base)]
    names = {True: "student {}", False: "{}"}[WORLD in done]
    rows = [(names.format(name), mean_sd(base.drop_duplicates())) for name, base in by_student]
    return table(["base model", "pass@1"], rows)


def published_table(results: Results, published: dict[str, Any]) -> Html:
    """The original's numbers, of another model on other problems."""
    by_regime = [published.get("pass_at_1", {}).get(regime, {}) for regime in results.regimes]
    head = [f"{r} ({values['statistic']})" if values else r for r, values in zip(results.regimes, by_regime)]
    rows = [(arm_name(arm), *(_published(values.get(arm)) for values in by_regime)) for arm in results.arms]
    return table(["published", *head], rows)


def _published(value: Sequence[float] | None) -> str:
    return f"{value[0]:.3f}{NBSP}±{NBSP}{value[1]:.3f}" if value else "none"


def order(events: pd.DataFrame) -> str:
    """Whether the advantage is largest before half of the gain is lost, over all cells that lose it, as sentences."""
    if not len(events):
        return "No finished cell loses half of its gain."
    found, rising = onset.order(events, "peak", "loss"), events.peak.notna().sum()
    text = f"{counted(len(events), 'cell')} {'loses' if len(events) == 1 else 'lose'} half of the gain."
    if not rising:
        return f"{text} The advantage std rises in none of them."
    return (
        f"{text} The advantage std rises in {rising} of them: its largest value comes before the loss in "
        f"{found.before}, after it in {found.after}, and in {found.undecided} between the same two evaluations."
    )


def event_rows(results: Results, events: pd.DataFrame) -> list[tuple[str, ...]]:
    """Regime and arm: cells that lose half of their gain, median steps of advantage's peak and of the loss, order."""
    rows = []
    arms = [(r, a) for r in results.regimes for a in results.arms if ((events.regime == r) & (events.arm == a)).any()]
    for regime, arm in arms:
        mine = events[(events.regime == regime) & (events.arm == arm)]
        all_of = results.finished[(results.finished.regime == regime) & (results.finished.arm == arm)]
        found = onset.order(mine, "peak", "loss")
        rows.append(
            (
                f"{regime}, {arm_name(arm)}",
                f"{len(mine)} of {len(all_of)}",
                _median_step([o.by for o in mine.peak if o is not None]),
                _median_step([o.by for o in mine.loss]),
                f"{found.before} / {found.after} / {found.undecided}" if mine.peak.notna().any() else "no rise",
            )
        )
    return rows


def _median_step(steps: list[float]) -> str:
    return f"{np.median(steps):g} ({min(steps):g} to {max(steps):g})" if steps else "no rise"


def _size(results: Results, arm: str) -> str:
    """What an arm trains and can hold, beneath its name; nothing where none of its cells says."""
    sizes = results.cells[results.cells.arm == arm].trainable_parameters.dropna().unique()
    if not len(sizes):
        return ""
    held = ", ".join(f"{size:,.0f} parameters, {budget.capacity(size):,.0f} bits" for size in sorted(sizes))
    return f"<br><small>{held}</small>"


def _arm_cell(results: Results, at_chosen: pd.Series, regime: str, arm: str) -> str:
    cells = results.cells[(results.cells.regime == regime) & (results.cells.arm == arm)]
    done = results.finished[results.finished.cell.isin(cells.cell)]
    lines = [f"<span class='lrd-main'>{_mean_sd(done.final)}</span>"]
    if len(at_chosen):
        value = _mean_sd(at_chosen[at_chosen.index.isin(done.cell)])
        lines.append(f"<span class='lrd-row'><i>chosen step</i> {value}</span>")
    groups = cells.groupby(WORLD) if WORLD in cells else [("", cells)]
    for name, mine in groups:
        links = " ".join(_seed(results, row) for row in mine.itertuples())
        label = f"student {name}" if name else "seeds"
        lines.append(f"<span class='lrd-row lrd-seeds'><i>{label}</i> {links}</span>")
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
