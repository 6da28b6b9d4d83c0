"""The words of the page on equivalence, and the rows of its tables.

Every sentence is true whatever was measured, and none says `equal`: the strongest is `within the margin`.
"""

import math

from lrd.analysis.crossed import ALPHA, Contrast
from lrd.analysis.equivalence import (
    MOST_SEEDS,
    NOT_REACHED,
    POWER,
    Comparisons,
    design,
    fewest_seeds,
    resampled_interval,
    slope,
)
from lrd.analysis.fair import FULL, WORLD
from lrd.analysis.stats import Verdict
from lrd.report.answer import ruins
from lrd.report.text import NOTHING, arm_name, bracketed, counted, listed, percent, signed, unbroken
from lrd.results import Results


def glued(results: Results, compared: Comparisons) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    return {
        "margin": f"{compared.margin:.2f}",
        "alpha": percent(ALPHA),
        "interval": percent(1 - 2 * ALPHA),
        "power": percent(POWER),
        "full": arm_name(results.arms[-1]),
        "size": size(compared),
        "sampled": sampled(results),
        "unjudged": unjudged(compared),
        "verdict": "; ".join(verdict(compared, regime) for regime in compared.final),
        "least": least(compared),
        "needed": needed(compared),
        "ruins": ruins(results),
        "slope": slope_sentences(compared),
    }


def comparison_rows(results: Results, compared: Comparisons, regime: str) -> list[tuple[str, ...]]:
    """One row a rank: difference, bootstrap, p, least margin, the mean over training, and how to read it."""
    rows = []
    for arm in results.arms[:-1]:
        c, over = compared.final[regime].get(arm), compared.area[regime].get(arm)
        if c is None:
            rows.append((unbroken(arm_name(arm)), *[NOTHING] * 6))
            continue
        rows.append(
            (
                unbroken(arm_name(arm)),
                with_interval(c),
                bracketed(*resampled_interval(compared.tables[regime][arm])),
                f"{p:.3f}" if (p := c.tost(compared.margin)) >= 0.001 else "< 0.001",
                f"{c.least_margin():.3f}",
                with_interval(over) if over else NOTHING,
                reading(c, compared.margin) if compared.is_judged(regime, arm) else "not judged",
            )
        )
    return rows


def design_rows(compared: Comparisons) -> list[tuple[str, ...]]:
    """One row a regime and size of design: what it could have found, given the variances that were found."""
    rows = []
    for regime, contrasts in compared.final.items():
        if not contrasts:
            rows.append((regime, *[NOTHING] * 4))
            continue
        tables = [compared.tables[regime][arm] for arm in contrasts]
        seeds, problems = tables[0].shape[-2:]
        for s, n in ((seeds, problems), (seeds, 4 * problems), (10, problems), (10, 4 * problems)):
            if d := design(tables, s, n):
                name = regime if (s, n) == (seeds, problems) else ""
                rows.append((name, str(s), str(n), f"{d.difference:.3f}", f"{d.margin:.3f}"))
    return rows


def rank_rows(results: Results, compared: Comparisons) -> list[tuple[str, ...]]:
    """One row a regime: deposits, required rank as estimated, as shown, its interval and the bootstrap's."""
    rows = []
    for regime in results.regimes:
        r, d = compared.required.get(regime), compared.deposits.get(regime)
        density = f"{d:.1f}" if d is not None else NOTHING
        if r is None:
            judged = all(name != regime for name, _ in compared.off_rate)
            rows.append((regime, density, *[NOTHING if judged else "not judged"] * 4))
            continue
        resampled = between(*r.resampled, r.ranks) if r.resampled else NOTHING
        rows.append((regime, density, rank(r.estimate), rank(r.shown), between(r.low, r.high, r.ranks), resampled))
    return rows


def size(compared: Comparisons) -> str:
    """How many seeds and problems a comparison is of."""
    sizes = {compared.tables[regime][arm].shape for regime, arms in compared.final.items() for arm in arms}
    texts = []
    for *students, seeds, problems in sorted(sizes):
        each = "".join(f"{counted(n, 'training')} of the student with " for n in students)
        texts.append(f"{each}{counted(seeds, 'seed')} on {counted(problems, 'problem')}")
    return listed(texts) or "too few seeds"


def sampled(results: Results) -> str:
    """What other samples an interval speaks of."""
    return "trainings of the student, seeds and problems" if WORLD in results.axes else "seeds and problems"


def unjudged(compared: Comparisons) -> str:
    """Arms that did not train at the rate that their sweep chose, and what is not judged for it; empty without any."""
    texts = [
        f"Under {regime} {arm_name(arm)} trained at {used:g}, and its sweep chose {chosen:g}: "
        f"{'no rank is' if arm == FULL else 'it is not'} judged there, and no required rank is named."
        for (regime, arm), (chosen, used) in compared.off_rate.items()
    ]
    return " ".join(texts)


def verdict(compared: Comparisons, regime: str) -> str:
    """How many ranks of a regime are within the margin, above, below and undecided, as a clause."""
    contrasts = list(compared.judged(compared.final)[regime].values())
    if compared.final[regime] and not contrasts:
        return f"under {regime} no rank is judged"
    if not contrasts:
        return f"under {regime} no rank has two finished seeds in common with full fine-tuning"
    inside = sum(c.equivalent(compared.margin) for c in contrasts)
    above = sum(c.differs and c.mean > 0 for c in contrasts)
    below = sum(c.differs and c.mean < 0 for c in contrasts)
    undecided = sum(c.verdict(compared.margin) is Verdict.UNDECIDED for c in contrasts)
    return (
        f"under {regime}, of {counted(len(contrasts), 'rank')} {inside} within the margin, {above} above full "
        f"fine-tuning, {below} below, {undecided} undecided"
    )


def least(compared: Comparisons) -> str:
    """The margins at which ranks would pass, from the first to the last, by regime."""
    judged = compared.judged(compared.final)
    margins = {regime: [c.least_margin() for c in arms.values()] for regime, arms in judged.items() if arms}
    return listed([f"{min(m):.3f} to {max(m):.3f} ({regime})" for regime, m in margins.items()]) or NOTHING


def needed(compared: Comparisons) -> str:
    """The fewest seeds with which the margin would be passed, by regime."""
    texts = []
    for regime, arms in compared.final.items():
        if arms:
            n = fewest_seeds([compared.tables[regime][arm] for arm in arms], compared.margin)
            texts.append(f"{n if n else f'more than {MOST_SEEDS}'} ({regime})")
    return listed(texts) or NOTHING


def slope_sentences(compared: Comparisons) -> str:
    """The slope of the required rank over density, with what its bounds and its estimate do not say."""
    s = slope({regime: compared.tables[regime] for regime in compared.required}, compared.deposits, compared.margin)
    if s is None:
        return (
            "The slope cannot be estimated: it takes two regimes of different density with ranks that can be "
            "compared with full fine-tuning."
        )
    bounds = bracketed(s.low, s.high, 2)
    if math.isnan(s.estimate):
        return (
            "The slope cannot be estimated: in some regime no rank tried is enough by its mean difference. The "
            f"regimes' intervals leave open {bounds} doublings of rank for ten times the deposits."
        )
    text = (
        f"Over {s.regimes} regimes the slope is {signed(s.estimate, 2)} {bounds} doublings of rank for ten times "
        "the deposits."
    )
    if s.floor:
        text += (
            " Every estimate is the smallest rank that was run: such a slope says that no reward is estimated to "
            "need more, and nothing of what less would do."
        )
    if not (math.isfinite(s.low) and math.isfinite(s.high)):
        text += " An open end means that under some reward no rank is known to be enough."
    return text


def reading(c: Contrast, margin: float) -> str:
    """A contrast in words; `undecided` where it is neither shown to be small nor shown to be there."""
    side = "above" if c.mean > 0 else "below"
    return {
        Verdict.EQUIVALENT: f"{side}, by less than the margin" if c.differs else "within the margin",
        Verdict.AHEAD: "above",
        Verdict.BEHIND: "below",
        Verdict.UNDECIDED: "undecided",
    }[c.verdict(margin)]


def with_interval(c: Contrast) -> str:
    """`−0.022 [−0.062, +0.018]`: the difference and its 95 % interval."""
    return f"{signed(c.mean)} {bracketed(*c.interval())}"


def rank(value: float) -> str:
    """`rank 16`, or `not reached`."""
    return "not reached" if value == NOT_REACHED else f"rank {value:.0f}"


def between(low: float, high: float, ranks: tuple[int, ...]) -> str:
    """Two ranks; the smallest that was run stands for itself and all smaller ones."""
    first = f"≤ {low:.0f}" if low == ranks[0] else rank(low).removeprefix("rank ")
    last = rank(high).removeprefix("rank ")
    return first if low == high else f"{first} to {last}"
