"""The words of notebooks/law.ipynb, some of them the start page's too: sentences and rows of tables. Torch-free."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from lrd.analysis import budget, codebooks, law
from lrd.analysis.bootstrap import Estimate, Side
from lrd.analysis.codebooks import Measured, Rewards
from lrd.analysis.law import Pair, Statistic
from lrd.report.rates import choice
from lrd.report.text import NBSP, NOTHING, listed, times

GROWING = {
    Side.ABOVE: "grows with the information",
    Side.BELOW: "shrinks with the information",
    Side.UNKNOWN: "has no interval yet",
}  # a slope against 0
READINGS = {
    Side.ABOVE: ", more than was expected",
    Side.BELOW: ", fewer than was expected",
    Side.WITHIN: ", as was expected",
    Side.UNDECIDED: ", which neither bears out nor rules out what was expected",
    Side.UNKNOWN: ", no interval yet",
}


def shown(estimate: Estimate) -> str:
    """`1.4 [1.0, 2.4]`; the value alone where it has no interval."""
    if not math.isfinite(estimate.value):
        return NOTHING
    known = estimate.low == estimate.low
    bounds = f" [{times(estimate.low)},{NBSP}{times(estimate.high)}]" if known else ""
    return (times(estimate.value) + bounds).replace("-", "−")


def finding(rewards: Rewards) -> str:
    """Under which rewards the matching size grows significantly, and whether a denser one requires more, in words."""
    if not rewards:
        return "Too few cells are finished for an answer."
    grows = [
        listed([r for r, m in rewards.items() if law.estimate(m, slope).against(0) is Side.ABOVE]) or "no reward"
        for slope in (law.growth, law.growth_at_equal_exposures)
    ]
    more = [
        f"{pair.denser} than {pair.sparser}" for pair in law.pairs(rewards) if pair.at_bits.against(1) is Side.ABOVE
    ]
    return (
        f"The size that matches full fine-tuning grows significantly with the information under {grows[0]} at equally "
        f"many episodes, and under {grows[1]} at equal exposures per key. When two rewards have taught equally much, "
        f"{f'more is required under {listed(more)}' if more else 'no denser one requires significantly more'}."
    )


def verdict(rewards: Rewards) -> str:
    """What the declared statistics say of sizes, as sentences; an interval that includes no effect is said to."""
    return (
        f"At equally many episodes the size that matches full fine-tuning {_growing(rewards, law.growth)} With equal "
        f"exposures per key it {_growing(rewards, law.growth_at_equal_exposures)} "
        f"{_densities(law.pairs(rewards), 'episodes')}"
    )


def verdict_at_exposures(rewards: Rewards) -> str:
    """As `verdict`, where codebooks are set side by side at equal exposures per key."""
    exposures = next(iter(rewards.values())).steps[-1]
    return (
        f"When each key has been asked for {exposures:.0f} times, the size that matches full fine-tuning "
        f"{_growing(rewards, law.growth)} {_densities(law.pairs(rewards), 'exposures per key')}"
    )


def _growing(rewards: Rewards, statistic: Statistic) -> str:
    """`grows with the information: slope 1.5 [0.96, 1.6] under supervised`, for every way in which it goes."""
    ways: dict[str, list[str]] = {}
    for regime, m in rewards.items():
        slope = law.estimate(m, statistic)
        way = GROWING.get(slope.against(0), "does not grow significantly")
        ways.setdefault(way, []).append(f"slope {shown(slope)} under {regime}")
    return "; it ".join(f"{way}: {listed(slopes)}" for way, slopes in ways.items()) + "."


def _densities(pairs: Sequence[Pair], equal: str) -> str:
    """Each reward's size over that of every sparser one, and whether any denser reward requires significantly more.

    `equal` names what rewards have had equally much of by the last evaluation.
    """
    texts = [
        f"{pair.denser} requires {shown(pair.at_end)} times the size that {pair.sparser} does ({shown(pair.at_bits)})"
        for pair in pairs
    ]
    more, less = (listed(_shown(pairs, side, equal)) for side in (Side.ABOVE, Side.BELOW))
    return (
        f"At equally many {equal}, and in brackets when both have taught full fine-tuning equally much, "
        f"{listed(texts)}: "
        f"{f'more is required under {more}' if more else 'no denser reward requires significantly more'}"
        f"{f'; less is required under {less}' if less else ''}."
    )


def _shown(pairs: Sequence[Pair], side: Side, equal: str) -> list[str]:
    """`distillation than outcome`, of each pair whose ratio is shown to lie on this side of 1; when, if not always."""
    when = {
        (True, True): "",
        (True, False): f" (at equally many {equal} alone)",
        (False, True): " (at equal bits alone)",
    }
    sides = [(pair.at_end.against(1) is side, pair.at_bits.against(1) is side) for pair in pairs]
    return [f"{pair.denser} than {pair.sparser}{when[at]}" for pair, at in zip(pairs, sides) if at in when]


def fallen(rewards: Rewards) -> str:
    """Adapters whose bits are shown to lie below those of the next smaller one, a sentence; empty without any."""
    texts = [
        f"{arm} under {regime} ({listed([f'{information:,.0f}' for information in less])} bits)"
        for regime, m in rewards.items()
        for arm, less in law.fallen(m).items()
    ]
    if not texts:
        return ""
    return (
        f"Shown to learn less than the next smaller adapter: {listed(texts)}. Room does not explain that, its learning "
        f"rate may."
    )


def stored(rewards: Rewards, between: tuple[float, float] | None) -> str:
    """Bits a parameter of supervised adapters, against the range that was expected, if any; empty without them."""
    if (m := rewards.get("supervised")) is None:
        return ""
    now, end = law.estimate(m, law.capacity), law.estimate(m, law.final_capacity)
    reading = "" if between is None else READINGS[end.against(*between)]
    text = (
        f"A supervised adapter stores {shown(now)} bits a parameter at the last evaluation; if its curves went on as "
        f"fitted, it would store {shown(end)} in the end{reading}."
    )
    most = law.largest_capacity(m)
    if end.value > most or end.high > most:
        text += f" The {'estimate' if end.value > most else 'upper end'} is the most that the fit can tell."
    return text


def spread(rewards: Rewards) -> str:
    """From least to most bits a parameter over rewards, at the last evaluation."""
    slopes = sorted((law.capacity(m, m.mean()), regime) for regime, m in rewards.items())
    return " to ".join(f"{times(c)} ({regime})" for c, regime in slopes[:: max(1, len(slopes) - 1)])


def held(first: Rewards, again: Rewards) -> str:
    """Whether slopes of a second preset lie within the intervals of the first, and are known better, as a sentence.

    One that lies outside may still be the same: whether the intervals have a value in common is said too.
    """
    before, after = (
        {regime: law.estimate(m, law.growth) for regime, m in rewards.items()} for rewards in (first, again)
    )
    texts = []
    for regime, b in after.items():
        a = before[regime]
        where = "within" if a.low <= b.value <= a.high else "outside"
        width = "narrower" if b.high - b.low < a.high - a.low else "no narrower"
        common = "they overlap" if a.overlaps(b) else "they have no value in common"
        texts.append(f"{where} the first run's interval under {regime} (its own is {width}; {common})")
    return f"At equally many episodes the slope lies {listed(texts)}."


def tested(rewards: Rewards) -> str:
    """How many rewards show growth, and which show a law of density at equal bits, as a sentence."""
    grows = [
        sum(law.estimate(m, slope).against(0) is Side.ABOVE for m in rewards.values()) or "none"
        for slope in (law.growth, law.growth_at_equal_exposures)
    ]
    pairs = [pair for pair in law.pairs(rewards) if pair.at_bits.against(1) is Side.ABOVE]
    more = listed([f"{pair.denser} against {pair.sparser}" for pair in pairs]) or "no two rewards"
    return (
        f"Growth is significant under {grows[0]} of {len(rewards)} rewards at equally many episodes, and under "
        f"{grows[1]} with equal exposures per key; that the denser requires more at equal bits is significant for "
        f"{more}."
    )


def beyond_adapters(rewards: Rewards) -> str:
    """How many sizes, over rewards and codebooks at equal exposures, are beyond every adapter: `5 of 6`."""
    return "{} of {}".format(*law.beyond_adapters(rewards))


def replicates(rewards: Rewards) -> str:
    """How many each reward has: `4 (supervised), 4 (outcome)`."""
    return ", ".join(f"{m.n} ({regime})" for regime, m in rewards.items())


def students(*presets: str) -> str:
    """From how many trainings of the student the cells of these presets began, as the end of a sentence."""
    number = law.trainings(*presets)
    return "all began from one training of it" if number == 1 else f"began from {number} trainings of it"


def repeated(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """How far apart the cells are that two frames share, at the last step of both, as the end of a sentence."""
    apart = 100 * codebooks.apart(a, b)
    ends = f"{apart.mean():.1f} % of a codebook on average, {apart.max():.0f} % at most"
    return f"shows in {len(apart)} cells that both have: their ends are {ends} apart"


def versions(*presets: str) -> str:
    """The versions of PyTorch that the presets' published cells ran under."""
    known = sorted({version for preset in presets for version in law.ran_on(preset).get("torch", [])})
    return f"PyTorch {listed(known)}"


def fit_rows(rewards: Rewards, statistics: Sequence[Statistic]) -> list[tuple[str, ...]]:
    """Each reward's statistics, and its sizes at the last evaluation."""
    rows = []
    for regime, m in rewards.items():
        sizes = ", ".join(_sizes(law.matching_sizes(m, m.mean())))
        rows.append((regime, *(shown(law.estimate(m, each)) for each in statistics), sizes))
    return rows


def arm_rows(m: Measured) -> list[tuple[str, ...]]:
    """Arm, parameters, capacity at the book's 2 bits each; of each codebook the bits learned and their share of it."""
    rows = []
    for arm, size, bits in zip(m.arms, m.parameters, m.mean()[:, :, -1]):
        shares = [f"{round(b):,} ({round(100 * b / most)} %)" for b, most in zip(bits, m.information)]
        rows.append((arm, f"{size:,.0f}", f"{budget.capacity(size):,.0f}", *shares))
    return rows


def equal_table(rewards: Rewards) -> tuple[list[str], list[tuple[str, ...]]]:
    """Sizes when full fine-tuning has absorbed as much as under the reward that teaches least: column names, rows.

    A column is a codebook: its information, and the bits absorbed at which arms are compared.
    """
    means = [(m, m.mean()) for m in rewards.values()]
    target = law.least_absorbed([mean for _, mean in means])
    books = zip(means[0][0].information, target)
    head = [f"{information:,.0f} bits, at {bits:,.0f} absorbed" for information, bits in books]
    return ["reward", *head], [(m.regime, *_sizes(law.sizes_at_equal_bits(m, mean, target))) for m, mean in means]


def _sizes(sizes) -> list[str]:
    return [f"{size:,.0f}" if size == size else NOTHING for size in sizes]


def rate_rows(shares: pd.DataFrame) -> list[tuple[str, ...]]:
    """Reward and adapter, the share learned at each rate, the rate that is taken and whether it is at an end."""
    return [
        (
            ", ".join(row),
            *(f"{max(100 * share, 0):.0f} %" if share == share else NOTHING for share in values),
            choice(shares, row) or NOTHING,
        )
        for row, values in zip(shares.index, shares.to_numpy(float))
    ]


def other_rows(frames: Mapping[str, pd.DataFrame]) -> list[tuple[str, ...]]:
    """Frames of `lrd.analysis.budget` by name, on the same axes: bits delivered at most over capacity, by reward."""
    rows = []
    for name, frame in frames.items():
        for regime in dict.fromkeys(frame.regime) or ["any"]:
            cells = frame[(frame.regime == regime) & frame.largest_ratio.notna()]
            ends = [
                f"{times(values.min())} to {times(values.max())}" if len(values) else NOTHING
                for values in (cells.capacity, cells.largest_ratio)
            ]
            rows.append((f"{name}: {regime}", str(len(cells)), *ends))
    return rows
