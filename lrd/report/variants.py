"""The words and tables of the page on matrices that vary one setting between two values."""

from lrd.analysis.stats import Difference
from lrd.analysis.variants import MOVED, Pair
from lrd.report.text import NBSP, NOTHING, counted, difference, mean_sd, signed


def verdict(pair: Pair) -> str:
    """The stated statistic, as sentences; `not run` where there is no pair of finished cells."""
    first, second = pair.values
    if (d := pair.difference("final")) is None:
        return f"Not run: no seed of preset {pair.results.preset} has both cells finished."
    text = (
        f"Over {counted(d.n, 'seed')}, final pass@1 with {second} minus that with {first} is {difference(d)}"
        f"{', an interval that leaves the sign open' if d.includes_zero and d.n > 1 else ''}."
    )
    if moved := pair.difference(MOVED):
        means = pair.by_seed(MOVED).mean()
        text += (
            f" Of the trained weights {_share(means[second])} differ at the last step from where they began with "
            f"{second}, and {_share(means[first])} with {first}: {_points(moved)}."
        )
    return text


def table(pair: Pair) -> tuple[list[str], list[tuple[str, ...]]]:
    """One row a seed, then the mean: final pass@1 of both, their difference, and the weights moved where logged."""
    final, moved = pair.by_seed("final"), pair.by_seed(MOVED)
    if moved.isna().all(axis=None):
        moved = moved[[]]
    head = [*(f"final pass@1, {value}" for value in final), "difference"]
    head += [f"weights moved, {value}" for value in moved]
    gaps = final[pair.values[1]] - final[pair.values[0]]
    rows = [
        (
            str(seed),
            *(NOTHING if x != x else f"{x:.3f}" for x in final.loc[seed]),
            _signed(gap),
            *map(_share, moved.loc[seed]),
        )
        for seed, gap in gaps.items()
    ]
    means = [*(mean_sd(final[value]) for value in final), difference(pair.difference("final"))]
    return ["seed", *head], [*rows, ("mean", *means, *map(_share, moved.mean()))]


def _points(d: Difference) -> str:
    """A difference of shares in percentage points."""
    return f"{difference(Difference(100 * d.mean, 100 * d.low, 100 * d.high, d.n), 1)} percentage points"


def _signed(x: float) -> str:
    return signed(x) if x == x else NOTHING


def _share(x: float) -> str:
    return f"{100 * x:.1f}{NBSP}%" if x == x else NOTHING
