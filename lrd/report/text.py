"""How numbers, intervals, names and lists are written on every page, and what stands where there is no number."""

import math

import pandas as pd

from lrd.analysis.stats import Difference

NOTHING = "not measured"
NBSP = "\N{NO-BREAK SPACE}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def signed(x: float, digits: int = 3) -> str:
    """With a sign, and the minus that stands in print; a zero is never negative."""
    return f"{round(x, digits) + 0.0:+.{digits}f}".replace("-", "−")


def mean_sd(values: pd.Series, digits: int = 3) -> str:
    """`0.950 ± 0.020`: mean and unbiased standard deviation; the mean alone for one value."""
    values = values.dropna()
    if not len(values):
        return NOTHING
    mean = f"{values.mean():.{digits}f}"
    return f"{mean}{NBSP}±{NBSP}{values.std():.{digits}f}" if len(values) > 1 else mean


def scientific(x: float) -> str:
    """`2.8 × 10⁻⁵`, and `0` for zero."""
    if not x:
        return "0"
    digits, exponent = f"{x:.1e}".split("e")
    return f"{digits}{NBSP}×{NBSP}10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def percent(share: float) -> str:
    """`80 %` of a share in [0, 1]."""
    return f"{100 * share:.0f}{NBSP}%"


def bracketed(low: float, high: float, digits: int = 3) -> str:
    """`[−0.053, +0.129]`; an end that is not finite is `∞`."""
    ends = [signed(x, digits) if math.isfinite(x) else "∞" if x > 0 else "−∞" for x in (low, high)]
    return f"[{ends[0]},{NBSP}{ends[1]}]"


def interval(d: Difference, digits: int = 3) -> str:
    """`bracketed` with a space before it; empty where one seed gives none, `[no bound]` for infinite ends."""
    if math.isinf(d.low):
        return f" [no{NBSP}bound]"
    return f" {bracketed(d.low, d.high, digits)}" if d.n > 1 else ""


def difference(d: Difference | None, digits: int = 3) -> str:
    """`+0.038 [−0.053, +0.129]`, a mean difference and its interval."""
    return f"{signed(d.mean, digits)}{interval(d, digits)}" if d else NOTHING


def arm_name(arm: str) -> str:
    """`r16` → `rank 16`, `full` → `full fine-tuning`."""
    return "full fine-tuning" if arm == "full" else f"rank {arm[1:]}"


def counted(n: int, word: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {word}{'' if n == 1 else 's'}"


def listed(words: list[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`; `last` stands before the last."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def unbroken(words: str) -> str:
    """The words, kept on one line."""
    return words.replace(" ", NBSP)


def times(ratio: float) -> str:
    """`0.19`, `5.2`, `1,300`: two digits that count, without an exponent."""
    if not math.isfinite(ratio) or ratio == 0:
        return "0" if ratio == 0 else "an unknown number of"
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:,.{max(0, 1 - math.floor(math.log10(abs(rounded))))}f}"
