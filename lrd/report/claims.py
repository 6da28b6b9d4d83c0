"""The start page's claims: what is claimed, on which evidence, how sure it is. Every verdict turns with the runs."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from lrd.analysis import law, objections, onset, sweep, variants
from lrd.analysis.crossed import MARGIN, Contrast
from lrd.analysis.fair import FULL
from lrd.analysis.headline import Line
from lrd.analysis.objections import Experiments
from lrd.analysis.stats import Verdict
from lrd.report import answer, display
from lrd.report.display import Html
from lrd.report.text import NBSP, NOTHING, arm_name, bracketed, counted, difference, listed, signed
from lrd.results import Results, load

SHOWN, UNDECIDED, CONTRADICTED = "shown", "undecided", "contradicted"
PRACTICE = "practice of each fact"
HEAD = ["claim", "evidence", "confidence", "where"]
PAGES = {"results": "results", "law": "capacity", "repair": "collapse", "variants": "variants"}  # page → its short name


@dataclass(frozen=True)
class Claim:
    """One row of the table."""

    statement: str
    evidence: str  # effects with their intervals
    n: str
    verdict: str  # one of the words above, or `NOTHING`
    why: str  # the rule by which it is that
    page: str  # of the book


def claims(found: Results, before: Results, lines: Sequence[Line]) -> list[Claim]:
    """The claims of the start page, in its order: the comparison, capacity, the collapse, bf16."""
    experiments = objections.experiments()
    return [
        enough(found, lines),
        flat(found, lines),
        ahead(found, lines),
        room(experiments),
        denser(experiments),
        collapse(found, before),
        precision(variants.Pair(load("small-bf16"))),
    ]


def table(made: Sequence[Claim]) -> Html:
    """A row a claim; on a narrow screen its fields stand one below the other."""
    rows = [
        (
            claim.statement,
            Html(f"{html.escape(claim.evidence)}<br><small>n: {html.escape(claim.n)}</small>"),
            Html(f"<b>{html.escape(claim.verdict)}</b><br><small>{html.escape(claim.why)}</small>"),
            Html(f"<a href='{claim.page}.html'>{PAGES[claim.page]}</a>"),
        )
        for claim in made
    ]
    return Html(f"<div class='lrd-claims'>{display.table(HEAD, rows)}</div>")


def enough(found: Results, lines: Sequence[Line]) -> Claim:
    """Non-inferiority of every rank under every reward; the evidence is that of the smallest."""
    smallest = arm_name(found.arms[0])
    effects = [(line.regime, line.lowest) for line in lines if line.lowest]
    if not effects:
        verdict = NOTHING
    elif all(line.suffices for line in lines):
        verdict = SHOWN
    else:
        verdict = CONTRADICTED if any(c.falls_short() for _, c in effects) else UNDECIDED
    return Claim(
        f"{smallest.capitalize()} is enough under every reward, and so is every larger rank: less than {MARGIN:g} "
        f"below full fine-tuning.",
        f"{smallest.capitalize()} minus full fine-tuning: {_tested(effects)}.",
        answer.samples(found),
        verdict,
        f"one-sided tests at 5{NBSP}%, of every rank",
        "results",
    )


def flat(found: Results, lines: Sequence[Line]) -> Claim:
    """Equivalence of the largest rank and the smallest, along the slope."""
    effects = [(line.regime, line.rise) for line in lines if line.rise]
    if not effects:
        verdict = NOTHING
    elif len(effects) == len(lines) and all(c.equivalent() for _, c in effects):
        verdict = SHOWN
    else:
        verdict = CONTRADICTED if any(abs(c.mean) - c.half(0.9) > MARGIN for _, c in effects) else UNDECIDED
    ends = [arm_name(arm) for arm in found.arms if arm != FULL]
    return Claim(
        f"A larger rank changes little: less than {MARGIN:g} from {ends[0]} to {ends[-1]}.",
        f"Change of pass@1 on a line through all ranks: {_tested(effects)}.",
        answer.samples(found),
        verdict,
        f"equivalence tests at 5{NBSP}%",
        "results",
    )


def _tested(effects: Sequence[tuple[str, Contrast]]) -> str:
    """Effects with the intervals that one-sided tests at 5 % go by."""
    texts = [f"{signed(c.mean)} {bracketed(*c.interval(0.9))} under {regime}" for regime, c in effects]
    return f"{listed(texts)} (90{NBSP}% intervals)" if texts else NOTHING


def ahead(found: Results, lines: Sequence[Line]) -> Claim:
    """Whether each rank differs from full fine-tuning after Holm's correction."""
    effects = [f"{answer.with_interval(line.pooled)} under {line.regime}" for line in lines if line.pooled]
    n = sum(line.verdicts.total() for line in lines)
    better, worse = (sum(line.verdicts[v] for line in lines) for v in (Verdict.AHEAD, Verdict.BEHIND))
    verdict = {worse: CONTRADICTED, better: SHOWN, 0: NOTHING}.get(n, UNDECIDED)  # of none, last
    return Claim(
        "There is a rank that ends ahead of full fine-tuning.",
        f"Mean of all ranks minus full fine-tuning, a comparison chosen afterwards: {listed(effects) or NOTHING} "
        f"(95{NBSP}% intervals).",
        answer.samples(found),
        verdict,
        f"Each rank under each reward is a test of its own, corrected for all {n} (Holm): {better} ahead, "
        f"{worse} behind",
        "results",
    )


def room(experiments: Experiments) -> Claim:
    """Growth of the matching size with the information: at equally many episodes, and at equal exposures per key."""
    kinds = {"episodes": False, PRACTICE: True}
    sides = {name: objections.capacity_sides(experiments, equal) for name, equal in kinds.items()}
    verdicts = {equal: side(*counts) for equal, counts in sides.items()}
    one = set(verdicts.values())
    return Claim(
        f"The adapter that reaches {100 * law.SHARE:.0f}{NBSP}% of full fine-tuning is larger where more has to be "
        f"stored.",
        "Here models learn made-up facts by heart. At equally many episodes this size grows with the facts in {1} of "
        "{0} pairs of experiment and reward and shrinks in {2}; where each fact is practised equally often, it grows "
        "in {4} of {3} and shrinks in {5}.".format(*sides["episodes"], *sides[PRACTICE]),
        _replicates(experiments),
        one.pop() if len(one) == 1 else "; ".join(f"{verdict} at equal {e}" for e, verdict in verdicts.items()),
        f"95{NBSP}% intervals, one at a time",
        "law",
    )


def denser(experiments: Experiments) -> Claim:
    """The ratio of matching sizes of two rewards, when both have taught equally much."""
    counts = objections.density_sides(experiments)
    return Claim(
        "A denser reward requires a larger adapter to store as many bits.",
        "Of {} pairs of rewards, the denser one takes the larger adapter in {} and the smaller in {}.".format(*counts),
        _replicates(experiments),
        side(*counts),
        f"95{NBSP}% intervals, one at a time",
        "law",
    )


def side(n: int, above: int, below: int) -> str:
    """The verdict where each of n intervals should lie above."""
    return {below: CONTRADICTED, above: SHOWN, 0: NOTHING}.get(n, UNDECIDED)  # of none, last


def _replicates(experiments: Experiments) -> str:
    known = [m.n for rewards, _ in experiments for m in rewards.values()]
    ends = " to ".join(dict.fromkeys([str(min(known)), str(max(known))])) if known else "no"
    return f"{counted(len(experiments), 'experiment')}, each arm {ends} times"


def collapse(found: Results, before: Results) -> Claim:
    """Adapters under the process reward: the share of cells that collapse, at the larger rate and at the best one."""
    shares = {results.preset: _collapsed(results) for results in (before, found)}
    (then, of_then), (now, of_now) = shares.values()
    verdict = NOTHING
    if of_then and of_now:
        low, high = (binomtest(*pair).proportion_ci(method="wilson") for pair in ((then, of_then), (now, of_now)))
        apart = {low.low > high.high: SHOWN, low.high < high.low: CONTRADICTED}
        verdict = apart.get(True, UNDECIDED)
    rates = [_rates(results) for results in (before, found)]
    return Claim(
        "The process reward collapses at a large learning rate, and not at the one that its own sweep chose.",
        f"Adapters that collapse: {then} of {of_then} at {rates[0]}, {now} of {of_now} at {rates[1]}.",
        f"{of_then} and {of_now} runs",
        verdict,
        "shares with Wilson's interval; students and lengths differ, too",
        "repair",
    )


def _collapsed(results: Results) -> tuple[int, int]:
    onsets = onset.onsets(results)
    mine = onsets[(onsets.regime == "process") & (onsets.arm != FULL)] if len(onsets) else onsets
    return (int(mine.collapse.notna().sum()), len(mine)) if len(mine) else (0, 0)


def _rates(results: Results) -> str:
    """The learning rates of the adapters under the process reward."""
    used = {rate for (regime, arm), rate in sweep.in_use(results.preset).items() if regime == "process" and arm != FULL}
    return listed([f"{rate:g}" for rate in sorted(used)])


def precision(pair: variants.Pair) -> Claim:
    """Full fine-tuning in bf16 against fp32."""
    d = pair.difference("final")
    word = {Verdict.BEHIND: SHOWN, Verdict.AHEAD: CONTRADICTED, Verdict.UNDECIDED: UNDECIDED}
    return Claim(
        "Full fine-tuning ends lower with its weights in bf16 than in fp32.",
        f"Pass@1 with bf16 minus that with fp32, under outcome: {difference(d)} (95{NBSP}% interval).",
        counted(d.n if d else 0, "seed"),
        word[d.verdict] if d else NOTHING,
        "paired by seed; one training of the student",
        "variants",
    )
