"""What is done otherwise than in the original, and what that changes: the words that the method's last table glues.

Computed from the runs and from the record of `lrd.checks.verification`; every phrase is true whatever was run.
"""

# pandas types a selection as any of Series, DataFrame and ndarray:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from typing import Any

from lrd.analysis import budget, equivalence
from lrd.analysis.verification import bf16_barrier
from lrd.report import verification
from lrd.report.text import NOTHING, arm_name, counted, percent, scientific, signed, times
from lrd.results import Results

PASSES = 3  # what an update times: the reference's forward pass, and a backward pass of about two


def facts(record: dict[str, Any], results: Results, original: str) -> dict[str, str]:
    """Keyed by the names that they are glued under; `original` is the preset at the report's scale."""
    checked = verification.glued(record, results)
    return {
        **{name: checked[name] for name in ("bare", "bare_share", "problems", "boxed", "loss", "batches", "trl")},
        **precision(record["precision"]),
        "forward": forward(record["forward"]),
        "third": third(results),
        "peaks": peaks(results),
        "bars": bars(results),
        "law": law(original),
    }


def precision(found: dict[str, Any]) -> dict[str, str]:
    """Full fine-tuning with weights in bf16 against fp32: what moved, how far, and the size from which nothing can."""
    rows = {(row["master_dtype"], row["updates"]): row for row in found["runs"]}
    last = max(updates for _, updates in rows)
    half, whole = rows["bfloat16", last], rows["float32", last]
    return {
        "learning_rate": scientific(found["learning_rate"]),
        "std": f"{found['std']:g}",
        "barrier": f"1/{1 / bf16_barrier(found['learning_rate']):.0f}",
        "updates": counted(last, "update"),
        "moved_first": percent(rows["bfloat16", 1]["moved"]),
        "moved": percent(half["moved"]),
        "moved_fp32": percent(whole["moved"]),
        "distance": percent(half["distance"] / whole["distance"]),
    }


def forward(found: dict[str, Any]) -> str:
    """How far a third forward pass is from the first, as a clause."""
    arms = found["arms"]
    worst = max(max(arm["logps"], arm["gradients"]) for arm in arms)
    if worst == 0:
        return "its log-probabilities and the gradient of the loss are the same to the last bit"
    return f"its log-probabilities and the gradient of the loss differ by at most {scientific(worst)}"


def third(results: Results) -> str:
    """What a third forward pass would add to a step, reckoned from the time of updates, as a phrase."""
    steps = results.of_finished(results.steps).reindex(columns=["regime", "time/update", "step_time"]).dropna()
    if not len(steps):
        return NOTHING
    total = steps.groupby("regime")[["time/update", "step_time"]].sum()
    shares = {
        row.Index: row.update / PASSES / row.step for row in total.set_axis(["update", "step"], axis=1).itertuples()
    }
    return ", ".join(f"{percent(shares[r])} ({r})" for r in results.regimes if r in shares)


def peaks(results: Results) -> str:
    """Where each regime stands against the base at its cells' peaks, and where at their ends, as a list."""
    texts, cells = [], results.finished
    for regime in results.regimes:
        mine = cells[(cells.regime == regime) & cells.base.notna()]
        if len(mine):
            peak, end = (signed((mine[value] - mine.base).mean()) for value in ("peak", "final"))
            texts.append(f"{peak} and {end} ({regime})")
    return ", ".join(texts) or NOTHING


def bars(results: Results) -> str:
    """What bars of ± sd say of each rank against full fine-tuning, and what paired intervals and TOST say of it."""
    full = results.arms[-1]
    found = equivalence.contrasts(equivalence.gaps(results))
    cells, overlapping, apart = results.finished, [], []
    for regime in results.regimes:
        for arm, contrast in found.get(regime, {}).items():
            one, other = (cells[(cells.regime == regime) & (cells.arm == a)].final for a in (arm, full))
            (overlapping if abs(one.mean() - other.mean()) <= one.std() + other.std() else apart).append(contrast)
    if not overlapping + apart:
        return f"no rank has two finished seeds in common with {arm_name(full)}"
    return (
        f"of {counted(len(overlapping + apart), 'comparison')} the bars overlap in {len(overlapping)} "
        f"({_read(overlapping)}) and stand apart in {len(apart)} ({_read(apart)})"
    )


def _read(contrasts: list[equivalence.Contrast]) -> str:
    close = sum(c.equivalent() for c in contrasts)
    differ = sum(c.differs and not c.equivalent() for c in contrasts)
    return f"within the margin: {close}, different: {differ}, undecided: {len(contrasts) - close - differ}"


def law(preset: str) -> str:
    """What outcome rewards can deliver at a preset's scale, as a multiple of what rank 1 holds there."""
    frame = budget.scale(preset)
    row = frame[(frame.regime == "outcome") & (frame["rank"] == 1)]
    return times(row.largest_ratio.iloc[0]) if len(row) else NOTHING
