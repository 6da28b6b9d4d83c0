"""What a reviewer objected to: whether the runs confirm it, or meet it, each with its numbers."""

from collections import Counter
from typing import Any

from scipy.stats import binomtest

from lrd.analysis import objections as numbers, sweep
from lrd.analysis.fair import FULL
from lrd.analysis.objections import Experiments, Peaks
from lrd.report.answer import with_interval
from lrd.report.display import Html
from lrd.report.text import NOTHING, counted, listed, signed
from lrd.results import Results

CONFIRMED, OPEN, MET, PARTLY = "confirmed", "not confirmed", "met", "met in part"
NAMES = {"chosen": "at the chosen step", "final": "at the last step", "area": "by area"}
Row = tuple[str, str, str, Html]  # objection, whether it is confirmed or met, numbers, link


def rows(found: Results, earlier: Results) -> list[Row]:
    """One an objection, in the review's order: of the fair comparison and the earlier one."""
    experiments = numbers.experiments()
    made: list[tuple[str, tuple[str, str], str]] = [
        ("The sign of the headline depends on the step", signs(found), "equivalence"),
        ("Learning rate and stopping time reverse the process headline", reversal(found, earlier), "rates"),
        ("Only the sparsest reward has a gradient over rank", gradient(found), "results"),
        ("Large advantages are mostly a symptom of the collapse", symptom(found, earlier), "stability"),
        ("Many comparisons are made without a correction", corrections(found, experiments), "equivalence"),
        ("Students differ, and no interval says so", students(found), "setup"),
        ("Rates were chosen from different windows", windows(found.preset), "rates"),
        ("Growth of the size with information is mainly speed", speed(experiments), "law"),
    ]
    return [
        (f"{chr(ord('A') + i)}. {name}", *answer, Html(f"<a href='{page}.html'>{page}</a>"))
        for i, (name, answer, page) in enumerate(made)
    ]


def counts(made: list[Row]) -> str:
    """How many objections have each verdict, as a sentence."""
    by = Counter(verdict for _, verdict, _, _ in made)
    return f"Of {counted(len(made), 'objection')}, {listed([f'{n} {_is(n)} {verdict}' for verdict, n in by.items()])}."


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def judged(found: Results, by_regime: dict[str, Any]) -> dict[str, Any]:
    """Those of the regimes under which full fine-tuning trained at the rate that its sweep chose."""
    off = sweep.off_rate(found.preset)
    return {regime: value for regime, value in by_regime.items() if (regime, FULL) not in off}


def signs(found: Results) -> tuple[str, str]:
    """Whether all ranks together lie on the same side of full fine-tuning by every measure."""
    by_measure = judged(found, numbers.by_measure(found))
    if not by_measure:
        return NOTHING, "No reward is judged."
    texts = [
        f"{listed([f'{signed(c.mean)} {NAMES[measure]}' for measure, c in each.items()])} ({regime})"
        for regime, each in by_measure.items()
    ]
    same = [regime for regime, each in by_measure.items() if len({c.mean > 0 for c in each.values()}) == 1]
    turned = {regime: steps for regime, steps in numbers.turned(found).items() if steps and regime in same}
    on_the_way = [f"up to step {max(steps)} under {regime}" for regime, steps in turned.items()]
    text = f"All ranks minus full fine-tuning: {'; '.join(texts)}. "
    text += f"The sign is the same by all measures under {listed(same)}." if same else "No reward has one sign."
    if on_the_way:
        text += f" On the way it is the other one: {listed(on_the_way)}."
    return (MET if len(same) == len(by_measure) else OPEN), text


def reversal(found: Results, earlier: Results) -> tuple[str, str]:
    """Whether adapters still end below full fine-tuning under the process reward."""
    now, then = (numbers.by_measure(results).get("process", {}).get("final") for results in (found, earlier))
    text = f"Adapters minus full fine-tuning at the last step: {with_interval(then)} before, {with_interval(now)} now."
    if now is None or then is None:
        return NOTHING, text
    if rates := sweep.off_rate(found.preset).get(("process", FULL)):
        chosen, used = rates
        text += f" It is not judged: full fine-tuning trained at {used:g}, and the sweep chose {chosen:g}."
        return "not judged", text
    return (CONFIRMED if now.differs and now.mean * then.mean < 0 else OPEN), text


def gradient(found: Results) -> tuple[str, str]:
    """Whether pass@1 depends on rank under the sparsest reward alone."""
    slopes = numbers.slopes(found)
    if not slopes:
        return NOTHING, "No reward has two ranks with all cells."
    texts = [f"{with_interval(each['area'], 4)} ({regime})" for regime, each in slopes.items()]
    family = sum(len(each) for each in slopes.values())
    graded = [regime for regime, each in slopes.items() if any(c.p * family < 0.05 for c in each.values())]
    how = listed([NAMES[measure] for measure in next(iter(slopes.values()))], "or")
    which = f"leaves zero out under {listed(graded)}" if graded else "leaves zero out under no reward"
    return (CONFIRMED if graded == found.regimes[:1] else OPEN), (
        f"Slope a doubling of the rank, by area: {listed(texts)}. "
        f"Corrected for {family} tests (Bonferroni), the interval {how} {which}."
    )


def symptom(found: Results, earlier: Results) -> tuple[str, str]:
    """Whether the largest advantages come after the collapse in most cells."""
    now, then = numbers.peaks(found), numbers.peaks(earlier)
    texts = [_late(then, "before")] if then.collapsed else []
    collapse = "collapses" if now.collapsed == 1 else "collapse"
    texts.append(f"In the fair comparison {now.collapsed} of {counted(now.cells, 'cell')} {collapse}.")
    late, fallen = then.late + now.late, then.collapsed + now.collapsed
    if not fallen:
        return NOTHING, " ".join(texts)
    share = binomtest(late, fallen).proportion_ci(method="wilson")
    texts.append(f"Together that is {late} of {fallen}, a share of [{share.low:.2f}, {share.high:.2f}].")
    return (CONFIRMED if share.low > 0.5 else OPEN), " ".join(texts)


def _late(peaks: Peaks, when: str) -> str:
    return (
        f"Of {counted(peaks.collapsed, 'cell')} that collapsed {when}, {peaks.late} had their largest advantages after "
        f"half of pass@1 was lost; the median of the largest std is {peaks.median:.1f}."
    )


def corrections(found: Results, experiments: Experiments) -> tuple[str, str]:
    """How many intervals leave zero out, and how many after the correction; the capacity experiments have none."""
    judged, alone, corrected = numbers.excluding_zero(found)
    slopes, above, below = (
        sum(each) for each in zip(*(numbers.capacity_sides(experiments, equal) for equal in (False, True)))
    )
    return PARTLY, (
        f"Of {counted(judged, 'judged comparison')}, {alone} have an interval without zero, {corrected} after Holm's "
        f"correction. The {slopes} slopes of the capacity experiments are not corrected: {above + below} leave zero "
        f"out, one at a time."
    )


def students(found: Results) -> tuple[str, str]:
    """How far the trainings of the student lie apart."""
    gaps, bases = judged(found, numbers.by_student(found)), numbers.bases(found)
    if not gaps:
        return NOTHING, "No reward is judged over several trainings of the student."
    texts = [f"{signed(gap.min())} to {signed(gap.max())} ({regime})" for regime, gap in gaps.items()]
    return MET, (
        f"Every interval spans {len(bases)} trainings of the student, whose pass@1 before training is "
        f"{bases.min():.3f} to {bases.max():.3f}. All ranks minus full fine-tuning, by student: {listed(texts)}."
    )


def windows(preset: str) -> tuple[str, str]:
    """Whether each arm's best rate lies inside its window, and the ratio of the best rates."""
    name = sweep.of(preset)
    cells = sweep.cells_of(name, sweep.curves(name)) if name else None
    best = {} if cells is None else sweep.rates(cells)
    if cells is None or not best:
        return NOTHING, "No arm's sweep is finished."
    tried = sweep.windows(cells)
    inside = sum(not sweep.at_end(tried[arm], rate) for arm, rate in best.items())
    texts = [
        f"{' to '.join(dict.fromkeys(f'{end:.0f}' for end in ends))} ({regime})"
        for regime, ends in sweep.ratios(best).items()
    ]
    text = (
        f"Each arm's best rate lies inside its window for {inside} of {len(best)} whose sweep is finished, of "
        f"{len(tried)} in all. The best rate of adapters over that of full fine-tuning: {listed(texts) or NOTHING}."
    )
    return (MET if inside == len(tried) else PARTLY), text


def speed(experiments: Experiments) -> tuple[str, str]:
    """At how many slopes the matching size grows significantly: at equally many episodes, at equal exposures per key.

    Fewer slopes above zero are no proof that there is no growth, so that nothing is called shown.
    """
    (all_, above, _), (all_equal, above_equal, below_equal) = (
        numbers.capacity_sides(experiments, equal) for equal in (False, True)
    )
    if not all_ or not all_equal:
        return NOTHING, "The capacity experiments have not run."
    text = (
        f"At equally many episodes {above} of {all_} slopes of size over information lie above zero; at equal "
        f"exposures per key {above_equal} of {all_equal} do, and {below_equal} below it."
    )
    return OPEN, text
