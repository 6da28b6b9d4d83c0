"""What is done otherwise than in the original, and what that changes: the words that the method's last table glues.

Computed from the runs and from the record of `lrd.checks.verification`; every phrase is true whatever was run.
"""

from collections import Counter
from typing import Any

from lrd.analysis import budget, method
from lrd.analysis.stats import Verdict
from lrd.analysis.verification import bf16_barrier
from lrd.report import verification
from lrd.report.display import Html
from lrd.report.text import NOTHING, arm_name, counted, percent, scientific, signed, times
from lrd.results import Results, published, root

REWARDS = "the notebook in which one batch is scored by every reward"
RECORDED = ("bare", "bare_share", "problems", "boxed", "loss", "batches", "trl")  # as on the page on verification


def glued(record: dict[str, Any], results: Results) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    checked = verification.glued(record, results)
    return {
        **{name: checked[name] for name in RECORDED},
        **precision(record["precision"]),
        "forward": forward(record["forward"]),
        "third": ", ".join(f"{percent(share)} ({r})" for r, share in method.third_pass(results).items()) or NOTHING,
        "peaks": peaks(results),
        "bars": bars(results),
        "law": law(published()["preset"]),
    }


def precision(recorded: dict[str, Any]) -> dict[str, str]:
    """Full fine-tuning with weights in bf16 against fp32: what moved, how far, and the size from which nothing can."""
    rows = {(row["master_dtype"], row["updates"]): row for row in recorded["runs"]}
    last = max(updates for _, updates in rows)
    half, whole = rows["bfloat16", last], rows["float32", last]
    return {
        "learning_rate": scientific(recorded["learning_rate"]),
        "std": f"{recorded['std']:g}",
        "barrier": f"1/{1 / bf16_barrier(recorded['learning_rate']):.0f}",
        "updates": counted(last, "update"),
        "moved_first": percent(rows["bfloat16", 1]["moved"]),
        "moved": percent(half["moved"]),
        "moved_fp32": percent(whole["moved"]),
        "distance": percent(half["distance"] / whole["distance"]),
    }


def forward(recorded: dict[str, Any]) -> str:
    """How far a third forward pass is from the first, as a clause."""
    worst = max(max(arm["logps"], arm["gradients"]) for arm in recorded["arms"])
    if worst == 0:
        return "its log-probabilities and the gradient of the loss are the same to the last bit"
    return f"its log-probabilities and the gradient of the loss differ by at most {scientific(worst)}"


def peaks(results: Results) -> str:
    """Where each regime stands against the base at its cells' peaks, and where at their ends, as a list."""
    by_regime = method.above_base(results).items()
    return ", ".join(f"{signed(peak)} and {signed(end)} ({regime})" for regime, (peak, end) in by_regime) or NOTHING


def bars(results: Results) -> str:
    """What bars of ± sd say of each rank against full fine-tuning, and what paired intervals and TOST say of it."""
    verdicts = method.bars(results)
    overlapping, apart = verdicts[True], verdicts[False]
    n = overlapping.total() + apart.total()
    if not n:
        return f"no rank has two finished seeds in common with {arm_name(results.arms[-1])}"
    return (
        f"of {counted(n, 'comparison')} the bars overlap in {overlapping.total()} ({_counts(overlapping)}) and stand "
        f"apart in {apart.total()} ({_counts(apart)})"
    )


def _counts(verdicts: Counter[Verdict]) -> str:
    different = verdicts[Verdict.AHEAD] + verdicts[Verdict.BEHIND]
    return (
        f"within the margin: {verdicts[Verdict.EQUIVALENT]}, different: {different}, "
        f"undecided: {verdicts[Verdict.UNDECIDED]}"
    )


def law(preset: str) -> str:
    """What outcome rewards can deliver at a preset's scale, as a multiple of what rank 1 holds there."""
    frame = budget.scale(preset)
    row = frame[(frame.regime == "outcome") & (frame["rank"] == 1)]
    return times(row.largest_ratio.iloc[0]) if len(row) else NOTHING


def rewards_link(preset: str) -> Html:
    """Leads to the notebook of `lrd rewards`, or says what makes it."""
    if not (root() / preset / "rewards" / "done.json").is_file():
        return Html(f"<p><code>lrd rewards {preset}</code> makes {REWARDS}.</p>")
    return Html(f"<p>See {REWARDS}: <a href='../runs/{preset}/rewards/rewards.html'>rewards</a>.</p>")
