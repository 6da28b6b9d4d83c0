"""What presets expected before they ran, clause by clause, beside what came out.

Each clause is a piece of the prediction that its preset states, and a test holds it to that. A clause *came true* or
*did not* where a test says so; an interval that includes what was expected and more is *not contradicted*.
"""

import math
from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from lrd.analysis import interventions, law, sweep
from lrd.analysis.bootstrap import Estimate, Side
from lrd.analysis.codebooks import Rewards
from lrd.analysis.crossed import MARGIN
from lrd.analysis.headline import Line
from lrd.analysis.stats import Verdict
from lrd.analysis.variants import MOVED, Pair
from lrd.report import display
from lrd.report.claims import UNDECIDED, enough, flat
from lrd.report.display import Html
from lrd.report.law import shown
from lrd.report.rates import ratio
from lrd.report.text import NOTHING, difference, listed, times
from lrd.results import Results

TRUE, FALSE, OPEN = "came true", "did not come true", "not contradicted"
HEAD = ["expected before it ran", "what came out", "evidence"]
Row = tuple[str, str, str]  # clause, verdict, evidence
RATIO = 10  # of an adapter's best rate to full fine-tuning's
MAGNITUDE = ("mean-to-go", "cap", "whitened")  # interventions on the size of advantages alone


def table(rows: Iterable[Row]) -> Html:
    """What was expected beside what came out; a clause from within a sentence begins with an ellipsis."""
    return display.table(HEAD, [(f"… {clause}" if clause[0].islower() else clause, *rest) for clause, *rest in rows])


def fair(found: Results, lines: list[Line], swept: pd.DataFrame) -> list[Row]:
    """Expectations of the fair comparison; the one on learning rates is judged by its sweep."""
    behind = enough(found, lines)
    rises = [line.rise for line in lines if line.rise]
    below = [c.mean + c.half(0.9) < MARGIN for c in rises]
    above = [c.mean - c.half(0.9) > MARGIN for c in rises]
    return [
        (
            "Under no reward does a rank fall behind full fine-tuning by more than the margin at the step that "
            "validation chose",
            _word(behind.verdict == "shown", behind.verdict == "contradicted", behind.verdict != NOTHING),
            behind.evidence,
        ),
        (
            "under none does accuracy rise with rank by more than the margin from rank 1 to rank 256",
            _word(bool(below) and all(below), any(above), bool(rises)),
            flat(found, lines).evidence,
        ),
        _tenfold("LoRA's best rate lies about ten times above that of full fine-tuning", swept),
    ]


def _word(true: bool, false: bool, known: bool = True) -> str:
    """The verdict, from tests of a clause and of its opposite."""
    return NOTHING if not known else TRUE if true else FALSE if false else UNDECIDED


def _tenfold(clause: str, swept: pd.DataFrame) -> Row:
    found = sweep.ratios(sweep.rates(swept))
    near = [abs(math.log(end / RATIO)) < math.log(sweep.spacing(swept)) / 2 for ends in found.values() for end in ends]
    return clause, _word(bool(near) and all(near), bool(near) and not any(near), bool(near)), ratio(swept)


def fair_lr(swept: pd.DataFrame) -> list[Row]:
    """Expectations of the learning-rate sweep, whose best rates have no intervals."""
    best = sweep.rates(swept)
    spread = {
        regime: max(rates) / min(rates)
        for regime in dict.fromkeys(r for r, _ in best)
        if (rates := [rate for (r, arm), rate in best.items() if r == regime and arm != "full"])
    }
    steps = [math.log(x) / math.log(sweep.spacing(swept)) for x in spread.values()] if best else []
    arms = list(dict.fromkeys(arm for _, arm in best))
    smaller = [
        best["process", arm] < min(rates)
        for arm in arms
        if ("process", arm) in best and (rates := [x for (r, a), x in best.items() if a == arm and r != "process"])
    ]
    return [
        _tenfold("LoRA's best rate lies about ten times above full fine-tuning's under every reward", swept),
        (
            "depends little on rank",
            _word(bool(steps) and max(steps) < 0.5, bool(steps) and max(steps) > 1.5, bool(steps)),
            f"Largest over smallest rate of a rank: {_by_reward(spread)}.",
        ),
        (
            "the process reward wants smaller rates than the others",
            _word(bool(smaller) and all(smaller), bool(smaller) and not any(smaller), bool(smaller)),
            f"Smaller than under both others for {sum(smaller)} of {len(smaller)} arms.",
        ),
    ]


def _by_reward(ratios: Mapping[str, float]) -> str:
    return listed([f"{times(x)} under {regime}" for regime, x in ratios.items()]) or NOTHING


def intervened(repaired: Results, lines: list[Line]) -> list[Row]:
    """Expectations of the process reward with one deposit an episode, at every rank."""
    claim = enough(repaired, lines)
    return [
        (
            "each stands within the margin of full fine-tuning or ahead of it",
            _word(claim.verdict == "shown", claim.verdict == "contradicted", claim.verdict != NOTHING),
            claim.evidence,
        )
    ]


def intervened_rates(swept: pd.DataFrame, fairly: pd.DataFrame) -> list[Row]:
    """Expectations of that intervention's learning rates."""
    best, others = sweep.rates(swept), sweep.rates(fairly)
    same = [rate == others["outcome", arm] for (_, arm), rate in best.items() if ("outcome", arm) in others]
    return [
        (
            "Those that the arm gets under the outcome reward",
            _word(bool(same) and all(same), bool(same) and not all(same), bool(same)),
            f"The same for {sum(same)} of {len(same)} arms that were swept.",
        )
    ]


def bf16(pair: Pair) -> list[Row]:
    """Expectations of full fine-tuning in bf16."""
    return [
        _lower("fewer weights move", pair, MOVED, 100, "Share of weights that moved, percentage points"),
        _lower("pass@1 ends lower", pair, "final", 1, "Final pass@1"),
    ]


def _lower(clause: str, pair: Pair, column: str, by: float, what: str) -> Row:
    d = pair.difference(column)
    if d is None:
        return clause, NOTHING, NOTHING
    word = _word(d.verdict is Verdict.BEHIND, d.verdict is Verdict.AHEAD)
    return (
        clause,
        word,
        f"{what}: {difference(type(d)(by * d.mean, by * d.low, by * d.high, d.n), 1 if by > 1 else 3)}.",
    )


def engine(pair: Pair) -> list[Row]:
    """Expectations of sampling with another engine."""
    d = pair.difference("final")
    word = NOTHING if d is None else OPEN if d.includes_zero else FALSE
    return [("pass@1 agrees within the noise of seeds", word, f"Final pass@1: {difference(d)}.")]


def base_law(rewards: Rewards) -> list[Row]:
    """Expectations of the first capacity experiment."""
    return [
        _bits("A supervised adapter stores about one bit a parameter, 0.65 to 1.1", rewards, "law"),
        _growth("The size that reaches 90 % of full fine-tuning grows with the information I", rewards),
        (
            "moves that size little",
            *_ratios([pair.at_end for pair in law.pairs(rewards)], {Side.ABOVE, Side.BELOW}),
        ),
    ]


def longer(rewards: Rewards, base: Rewards) -> list[Row]:
    """Expectations of longer runs at equal exposures per key."""
    slope = law.estimate(rewards["supervised"], law.growth) if "supervised" in rewards else None
    ends = [[law.capacity(m, m.mean()) for m in each.values()] for each in (base, rewards)]
    first, second = (max(values) / min(values) if values and min(values) > 0 else math.nan for values in ends)
    return [
        _growth("the size grows with the information under every reward", rewards),
        (
            "in proportion under the supervised one",
            NOTHING if slope is None else FALSE if slope.against(1) in (Side.ABOVE, Side.BELOW) else OPEN,
            f"Slope over log I, 1 if in proportion: {shown(slope) if slope else NOTHING}.",
        ),
        (
            "bits a parameter come closer to each other",
            _word(second < first, second >= first, first == first and second == second),
            f"Most over least bits a parameter: {times(first)} before, {times(second)} here; no interval.",
        ),
    ]


def between(rewards: Rewards, base: Rewards) -> list[Row]:
    """Expectations of the capacity experiment with more ranks."""
    pairs = [(law.estimate(base[r], law.growth), law.estimate(m, law.growth)) for r, m in rewards.items() if r in base]
    inside = [a.low <= b.value <= a.high for a, b in pairs]
    narrower = [b.high - b.low < a.high - a.low for a, b in pairs]
    ordered = [
        low <= middle <= high
        for m in rewards.values()
        for i, arm in enumerate(m.arms)
        if arm in ("rank-2", "rank-16")
        for low, middle, high in zip(*(m.mean()[j, :, -1] for j in (i - 1, i, i + 1)))
    ]
    return [
        _all("under every reward the slope lies within the interval that `law` gave", inside, "rewards"),
        _all("its own interval is narrower", narrower, "rewards"),
        _all(
            "Ranks 2 and 16 fall between their neighbours",
            ordered,
            "means over replicates, by rank, reward and codebook",
        ),
    ]


def _all(clause: str, each: Collection[bool], what: str) -> Row:
    return clause, _word(all(each), not all(each), bool(each)), f"{sum(each)} of {len(each)} {what}."


def larger(rewards: Rewards) -> list[Row]:
    """Expectations of the capacity experiment with another student."""
    pairs = [pair.at_bits for pair in law.pairs(rewards)]
    return [
        _growth(
            "the size that reaches 90 % of full fine-tuning grows with the information under every reward", rewards
        ),
        ("no denser reward asks for more at equal bits", *_ratios(pairs, {Side.ABOVE})),
        _bits(
            "In the end a supervised adapter stores about as many bits a parameter as one of the small student, 0.1 to "
            "0.3",
            rewards,
            "law-small",
        ),
    ]


def _bits(clause: str, rewards: Rewards, preset: str) -> Row:
    """Bits a parameter in the end, against the range that the preset expects."""
    m, range_ = rewards.get("supervised"), law.expected(preset)
    if m is None or range_ is None:
        return clause, NOTHING, NOTHING
    end = law.estimate(m, law.final_capacity)
    words = {Side.WITHIN: TRUE, Side.UNDECIDED: UNDECIDED, Side.UNKNOWN: NOTHING}
    return clause, words.get(end.against(*range_), FALSE), f"Bits a parameter in the end: {shown(end)}."


def _growth(clause: str, rewards: Rewards) -> Row:
    slopes = {regime: law.estimate(m, law.growth) for regime, m in rewards.items()}
    sides = [slope.against(0) for slope in slopes.values()]
    word = _word(set(sides) == {Side.ABOVE}, Side.BELOW in sides, bool(sides))
    texts = [f"{shown(slope)} under {regime}" for regime, slope in slopes.items()]
    return clause, word, f"Slope over log I: {listed(texts) or NOTHING}."


def _ratios(pairs: list[Estimate], against: set[Side]) -> tuple[str, str]:
    """Verdict and evidence: does the interval of some ratio of sizes lie on a side of one that was not expected?"""
    wrong = [pair for pair in pairs if pair.against(1) in against]
    word = NOTHING if not pairs else FALSE if wrong else OPEN
    texts = listed([shown(pair) for pair in pairs]) or NOTHING
    return word, f"Size under the denser reward over that under the sparser: {texts}."


def repair(frame: pd.DataFrame) -> list[Row]:
    """Expectations of the interventions on the collapse."""
    tame, kept = (interventions.shown(frame, value) for value in ("magnitude", "lost"))
    some, declared = bool(len(frame)), {"canonical-minimum", "outcome"}
    saving = [name for name in MAGNITUDE if name in kept]
    return [
        (
            "Repairs of magnitude make the advantages small",
            _word(set(MAGNITUDE) <= set(tame), not set(MAGNITUDE) & set(tame), some),
            f"Significantly smaller with {_named(name for name in MAGNITUDE if name in tame)}.",
        ),
        (
            "pass@1 is lost all the same",
            NOTHING if not some else FALSE if saving else OPEN,
            magnitude_alone(frame),
        ),
        (
            "only canonical steps, with one deposit a trajectory, and the outcome mixed in keep it",
            _word(set(kept) == declared, set(kept) != declared, some),
            f"Significantly less is lost with {_named(kept)}.",
        ),
    ]


def _named(names: Iterable[str]) -> str:
    return listed([*names]) or "none"


def magnitude_alone(frame: pd.DataFrame) -> str:
    """The effect on the loss of the interventions on magnitude alone, as a sentence."""
    effects = {name: interventions.effect(frame, name, "lost") for name in MAGNITUDE}
    texts = [f"{difference(d)} with {name}" for name, d in effects.items() if d]
    return f"Effect on the loss of pass@1, over all arms: {listed(texts) or NOTHING}."


def changed(frame: pd.DataFrame) -> str:
    """Whether what would change our mind on magnitude has happened: by the declared effect, and of adapters alone."""
    if not len(frame):
        return "Nothing has been run that could."
    adapters = frame[frame["rank"].notna()]
    declared, after = (
        [name for name in MAGNITUDE if name in interventions.shown(cells, "lost")] for cells in (frame, adapters)
    )
    said = (
        f"It has happened, with {listed(declared)}."
        if declared
        else "By the declared effect it has not happened: no such repair has an interval below zero."
    )
    alone = [f"{difference(interventions.effect(adapters, name, 'lost'))} with {name}" for name in after]
    if after:
        said += f" Of the adapters alone, looked at afterwards, it has: {listed(alone)}."
    elif len(adapters):
        said += " Nor has it of the adapters alone."
    return f"{said} {magnitude_alone(frame)}"
