"""Words of the verification page that depend on its record and on the runs."""

from typing import Any

from lrd.analysis import verification
from lrd.report.text import NOTHING, counted, scientific
from lrd.results import Results


def glued(record: dict[str, Any], results: Results) -> dict[str, str]:
    """What the page's sentences say, keyed by the names that they are glued under; true whatever was recorded."""
    verifier, loss, twice = record["verifier"], record["loss"], record["twice"]
    difference = verification.loss_difference(record)
    equal = sum(not cell["differing"] for cell in twice["cells"])
    right, wrong = verification.graded(record).values()
    gaps = verification.sampler_gap(results)
    both = len(set(verifier["bare_unparsed"]) & set(verifier["bare_lost"]))
    return {
        "problems": str(verifier["problems"]),
        "bare": str(len(verifier["bare_lost"])),
        "bare_share": f"{100 * len(verifier['bare_lost']) / verifier['problems']:.1f} %",
        "unparsed": str(both),
        "boxed": str(len(verifier["boxed_lost"])),
        "paid": str(len(verifier["next_paid"])),
        "pairs": str(verifier["next_pairs"]),
        "graded_pairs": f"{right.pairs + wrong.pairs:,}",
        "graded_ours": f"{right.ours + wrong.ours:,}",
        "graded_theirs": f"{right.theirs + wrong.theirs:,}",
        "graded_wrong": f"{wrong.pairs:,}",
        "paid_ours": str(wrong.pairs - wrong.ours),
        "paid_theirs": str(wrong.pairs - wrong.theirs),
        "math_verify": verifier["math_verify"],
        "trl": loss["trl"],
        "batches": str(loss["batches"]),
        "loss": "zero, to the last bit" if difference == 0 else scientific(difference),
        "clipped": f"{100 * min(row['clipped'] for row in loss['aggregations'].values()):.0f} %",
        "other": f"{loss['other_estimator']:.4f}",
        "twice": f"{equal} of {counted(len(twice['cells']), 'pair')}",
        "steps": counted(twice["steps"], "step"),
        "gap_steps": f"{int(gaps.steps.sum()):,}",
        "gap": f"{scientific(gaps['max'].to_numpy().max())} nats" if len(gaps) else NOTHING,
    }
