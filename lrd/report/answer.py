"""The words of the start page: what its experiment found, true whatever was measured."""

from collections.abc import Sequence

from lrd.analysis import fair, headline
from lrd.analysis.budget import outcome_budget
from lrd.analysis.crossed import MARGIN, Contrast
from lrd.analysis.headline import Line
from lrd.analysis.stats import Verdict, below_base
from lrd.report.budget import consequence
from lrd.report.text import NOTHING, arm_name, bracketed, counted, listed, mean_sd, signed
from lrd.results import Results

MOVES = {
    Verdict.AHEAD: "rises",
    Verdict.BEHIND: "falls",
    Verdict.EQUIVALENT: f"changes by less than {MARGIN:g}",
    Verdict.UNDECIDED: f"has no significant trend, and a change of {MARGIN:g} is not excluded,",
}  # of pass@1, from the smallest rank to the largest
HEAD = ["reward", "deposits", "base → full", "adapters, least to most"]
HEAD += ["adapters minus full", "slope per doubling of rank", "ranks against full"]  # of `rows`
CAPACITY = {
    "law": "base",
    "law-ranks": "more ranks, another student",
    "law-long": "larger codebooks for longer",
    "law-small": "larger student",
}  # the capacity experiments, by what differs
COUNTED = (Verdict.AHEAD, Verdict.BEHIND, Verdict.EQUIVALENT, Verdict.UNDECIDED)


def glued(results: Results) -> dict[str, str]:
    """Keyed by the names that they are glued under."""
    budget, lines = outcome_budget(results), headline.lines(results)
    return {
        "runs": f"{len(results.finished)}",
        "lowest": arm_name(results.arms[0]),
        "margin": f"{MARGIN:g}",
        "samples": samples(results),
        "read": read(results),
        "outright": outright(results, lines),
        "rise": rise(lines),
        "verdict": verdict(lines),
        "together": together(lines),
        "near": near(lines),
        "unjudged": unjudged(lines),
        "reach": reach(lines),
        "parameters": f"{budget.parameters:,.0f}" if budget.parameters > 0 else "an unknown number of",
        "capacity": f"{budget.capacity:,.0f}" if budget.parameters > 0 else "an unknown number of",
        "episodes": f"{budget.episodes:,}",
        "consequence": consequence(budget),
    }


def rows(results: Results) -> list[tuple[str, ...]]:
    """One a reward: deposits, pass@1 of base, full fine-tuning and adapters, their difference, slope, verdicts."""
    return [
        (
            line.regime,
            number(line.deposits, 1),
            f"{number(line.base)} → {number(line.full)}",
            f"{min(means):.3f} to {max(means):.3f}" if (means := line.ranks.values()) else NOTHING,
            with_interval(line.pooled),
            with_interval(line.slope, 4),
            tally(line) or NOTHING,
        )
        for line in headline.lines(results)
    ]


def number(x: float, digits: int = 3) -> str:
    """The number, or that it was not measured."""
    return f"{x:.{digits}f}" if x == x else NOTHING


def with_interval(c: Contrast | None, digits: int = 3) -> str:
    """A gap and its 95 % interval."""
    return f"{signed(c.mean, digits)} {bracketed(*c.interval(), digits)}" if c else NOTHING


def tally(line: Line) -> str:
    """`2 ahead, 3 undecided`, of a reward's ranks; empty where none can be compared."""
    return ", ".join(f"{n} {verdict.value}" for verdict in Verdict if (n := line.verdicts[verdict]))


def samples(results: Results) -> str:
    """What an interval speaks of."""
    students = len(set(results.cells[fair.WORLD])) if fair.WORLD in results.axes else 1
    of = [f"{counted(students, 'training')} of the student"] if students > 1 else []
    return listed([*of, counted(results.cells.seed.nunique(), "seed"), f"{problems(results)} test problems"])


def read(results: Results) -> str:
    """At which step a cell's pass@1 is read, as a phrase."""
    if headline.measure(results) == "chosen":
        return "at the step of the highest pass@1 on the validation problems"
    return "at the last step"


def outright(found: Results, lines: Sequence[Line]) -> str:
    """The answer to the title's question with its numbers, as a sentence; each way that it can go has one."""
    if not lines or not all(line.lowest for line in lines):
        return "Too few cells are finished for an answer."
    smallest, names = arm_name(found.arms[0]), [line.regime for line in lines]
    if all(line.suffices for line in lines):
        text = (
            f"No, not in this study: {smallest}, the smallest tried, is enough under {listed(names)} alike, less than "
            f"{MARGIN:g} of pass@1 below full fine-tuning"
        )
        if changes := [signed(line.rise.mean) for line in lines if line.rise]:
            largest = arm_name([arm for arm in found.arms if arm != fair.FULL][-1])
            text += f", and going to {largest} changes pass@1 by {listed(changes)} (on a line through all ranks)"
        return f"{text}."
    suffice = [line.regime for line in lines if line.lowest and line.lowest.suffices()]
    short = [line.regime for line in lines if line.lowest and line.lowest.falls_short()]
    if suffice and short and max(map(names.index, suffice)) < min(map(names.index, short)):
        return (
            f"Yes: {smallest} is enough under {listed(suffice)} and ends more than {MARGIN:g} of pass@1 below full "
            f"fine-tuning under {listed(short)}."
        )
    return f"Undecided: {smallest} is shown to be enough under {listed(suffice) or 'no reward'}, and not under all."


def rise(lines: Sequence[Line]) -> str:
    """How pass@1 moves from the smallest rank to the largest, as a sentence."""
    moves: dict[str, list[str]] = {}
    for line in lines:
        if line.rise:
            kind = line.rise.verdict()
            tested = f"{signed(line.rise.mean)}, 90 % interval {bracketed(*line.rise.interval(0.9))}"
            said = tested if kind is Verdict.EQUIVALENT else with_interval(line.rise)
            moves.setdefault(MOVES[kind], []).append(f"{line.regime} ({said})")
    if not moves:
        return "No two ranks can be compared yet."
    ends = {(next(iter(line.ranks)), next(reversed(line.ranks))) for line in lines if line.rise}
    first, last = map(arm_name, ends.pop()) if len(ends) == 1 else ("the smallest rank", "the largest")
    return f"From {first} to {last} pass@1 {'; it '.join(f'{move} under {listed(of)}' for move, of in moves.items())}."


def verdict(lines: Sequence[Line]) -> str:
    """How many ranks are ahead of full fine-tuning, behind, equivalent and undecided, as sentences."""
    rewards: dict[str, list[str]] = {}  # by what is said of them
    for line in lines:
        counts = {v: n for v in COUNTED if (n := line.verdicts[v])}
        if counts:
            judged, each = counted(sum(counts.values()), "rank"), listed([f"{n} {v.value}" for v, n in counts.items()])
            said = f"all {judged} are {next(iter(counts)).value}" if len(counts) == 1 else f"of {judged}, {each}"
            rewards.setdefault(said, []).append(line.regime)
    texts = [f"Under {listed(regimes)}, {said}." for said, regimes in rewards.items()]
    return " ".join(texts) or "No rank can be judged against full fine-tuning yet."


def together(lines: Sequence[Line]) -> str:
    """The mean of all ranks minus full fine-tuning where it is judged, as a sentence."""
    texts = [f"{with_interval(line.pooled)} under {line.regime}" for line in lines if line.pooled and not line.off_rate]
    return f"Looked at afterwards, the mean of all ranks minus full fine-tuning is {listed(texts) or NOTHING}."


def near(lines: Sequence[Line]) -> str:
    """Under which rewards no rank falls behind by the margin, as a sentence; empty where under none."""
    names = [line.regime for line in lines if line.suffices]
    if not names:
        return ""
    return (
        f"Under {listed(names)} every rank lies less than {MARGIN:g} below full fine-tuning (one-sided tests at 5 %)."
    )


def unjudged(lines: Sequence[Line]) -> str:
    """Where full fine-tuning did not train at its best rate, so that there is no verdict; empty if nowhere."""
    texts = [
        f"Under {line.regime} there is no verdict yet: full fine-tuning trained at the learning rate {used:g}, and the "
        f"sweep chose {chosen:g}."
        for line in lines
        if line.off_rate
        for chosen, used in [line.off_rate]
    ]
    return " ".join(texts)


def earlier(found: Results, before: Results) -> str:
    """All ranks together minus full fine-tuning: at the last step of an earlier comparison, and now."""
    then = headline.pooled(fair.answers(before, "final"))
    now = {line.regime: line.pooled for line in headline.lines(found) if line.pooled and not line.off_rate}
    texts = [
        f"{with_interval(c)} under {regime}{f' ({with_interval(now[regime])} in this one)' if regime in now else ''}"
        for regime, c in then.items()
    ]
    if not texts:
        return "Its runs are not at hand."
    text = f"There the mean of all ranks minus full fine-tuning was {listed(texts)} at the last step."
    both = [regime for regime in then if regime in now]
    turned = [regime for regime in both if then[regime].mean * now[regime].mean < 0]
    kept = [regime for regime in both if regime not in turned]
    if turned:
        text += f" The sign has turned under {listed(turned)}."
    if kept:
        text += f" The sign is the same under {listed(kept)}."
    if open_ := [regime for regime in then if regime not in now]:
        text += f" Under {listed(open_)} this comparison has no verdict."
    return text


def reach(lines: Sequence[Line]) -> str:
    """The differences from full fine-tuning that intervals around zero do not rule out, as a phrase."""
    open_ = [line for line in lines if line.pooled and not line.pooled.differs and not line.off_rate]
    if not open_:
        return "no mean over ranks that was judged has an interval that includes zero"
    ends = [f"{max(map(abs, line.pooled.interval())):.3f} ({line.regime})" for line in open_ if line.pooled]
    return f"those measured here still allow a difference of {listed(ends)}"


def problems(results: Results) -> str:
    """How many held-out problems there are."""
    return str(results.evals.problem.nunique()) if len(results.evals) else "the"


def magnitude(results: Results) -> str:
    """The largest advantage std that a cell reaches, averaged by regime, largest first, as a list."""
    stds = {r: cells.dropna() for r, cells in results.finished.groupby("regime", sort=False).peak_advantage_std}
    known = sorted((r for r in stds if len(stds[r])), key=lambda r: -stds[r].mean())
    return ", ".join(f"{mean_sd(stds[regime], 2)} ({regime})" for regime in known) or NOTHING


def ruins(results: Results) -> str:
    """A warning, as a sentence, where ends are compared after a collapse: most cells of a regime end below the base."""
    counts = below_base(results)
    fallen = [regime for regime, (low, n) in counts.items() if 2 * low > n]
    if not counts:
        return "No cell has finished."
    if not fallen:
        return "In no regime do most cells end below the base."
    return (
        f"Under {listed(fallen)} most cells end below the base, so that a difference at the end compares what a "
        f"collapse has left."
    )
