r"""Are two answers equal? math-verify decides the algebra; what it would misread is settled before it is asked.

- *Notation* becomes one (`lrd/verifier/notation.py`). Units are compared, and dropped where only one answer has any.
- *What is no algebra* is compared as what it is: clock times, ratios, numbers to a base, choices, words. `nan` is no
  answer.
- *Precision*. To math-verify numbers are equal if their difference is below 10^-15, so 10^-19 equals 10^-18. Here a
  difference is taken relative to the numbers.

In doubt two answers differ: a wrong answer that is paid is learned. The package runs this module as a child.
"""

import contextlib
import functools
import json
import re
import signal
import socket
import sys
from collections import Counter
from fractions import Fraction
from typing import Any

from lrd.verifier.notation import normal, plain, split

# --- what is no algebra

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BASES = {name: i for i, name in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}
TERM = r"(?:[\d. ]|\\(?:sqrt|frac|pi)|[{}])+"
RELATION = re.compile(r"[<>]|\\[gl]eq?(?![a-zA-Z])")
SPACED = re.compile(r"[\d. ]*\d [\d.][\d. ]*")  # `1 2 3`, no product
PRIME = re.compile(r"(?<![a-zA-Z])[a-zA-Z]'+(?![a-zA-Z])|\\prime")  # which math-verify leaves out
SET_AND_PAIR = re.compile(
    r"\\\{[^()]*,[^()]*\\\} [(\[][^()]*[)\]]|[(\[][^()]*[)\]] \\\{[^()]*,[^()]*\\\}"
)  # as two answers with a space between them


def clock(text: str) -> tuple[Any, ...] | None:
    """Hour and minute of a day; with a mark where `7:15` leaves open which half of the day is meant."""
    time = re.fullmatch(r"(\d{1,2})(?::([0-5]\d))?\s*(?:([ap])\s*\.?\s*m\.?)?", plain(text), re.IGNORECASE)
    if not time or not (time[2] or time[3]) or int(time[1]) > 24:
        return None
    hour, minute = int(time[1]), int(time[2] or 0)
    if time[3]:
        return hour % 12 + 12 * (time[3].lower() == "p"), minute
    return (hour, minute) if hour == 0 or hour > 12 else ("open", hour, minute)


def based(text: str) -> tuple[str, int] | None:
    """Digits and base of `123_4`, of which math-verify reads the `123` alone."""
    number = re.fullmatch(r"\(?([+-]?[\dA-Za-z. ]+)\)?\s*(?:_|base)[{( ]*(?:base)?\s*(\d\d?|[a-z]+)[)} ]*", plain(text))
    if not number:
        return None
    digits, base = (
        number[1].replace(" ", "").upper(),
        BASES.get(number[2]) or int(number[2] if number[2].isdigit() else 0),
    )
    return (digits.lstrip("0"), base) if 2 <= base <= 36 and max(digits, default="~") <= DIGITS[base - 1] else None


def decimal(text: str) -> str:
    """Numbers to a base within an expression, as their values."""

    def value(match: re.Match) -> str:
        with contextlib.suppress(ValueError):  # no such digit to this base, or no base
            return str(int(match[1], int(match[2])))
        return match[0]

    return re.sub(r"(?<![\w.])(\d+)_\s*\{?(\d{1,2})(?:\}|(?!\d))", value, text)


def ratio(text: str) -> list[str] | None:
    """The terms of `1:2:3`."""
    text = re.sub(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(?=\d)", ":", text)
    return text.split(":") if re.fullmatch(rf"{TERM}(?::{TERM})+", text) else None


def choice(text: str) -> str | None:
    r"""The letter of `\text{(A)}`, `A)`, `Option A` or `(A) 12`."""
    found = re.fullmatch(
        r"(?:(?i:option|choice|answer)\s*:?\s*)?[(\[]?(?:([A-Za-z])[)\]]?"
        r"|([A-J])[).:]\s*(?!.*(?:\([A-J]\)|\b(?:and|or)\b|,)).+)",
        plain(text),
        re.DOTALL,
    )
    return found and (found[1] or found[2])


def words(text: str) -> str | None:
    r"""What is words rather than a product of letters: it has `\text`, or four letters in a row."""
    spelled = " ".join(plain(text).split()).casefold()
    if not re.fullmatch(r"[^\W\d_][\w\s.,'&-]*", spelled):
        return None
    return spelled if re.search(r"\\text|[^\W\d_]{4}|^[A-Z]{2,3}$", text) else None


# --- the comparison


def equal(gold: str, target: str) -> bool:
    """Whether `target` answers `gold`; both are what stands in a box."""
    gold, target = normal(gold), normal(target)
    if not gold or not target or "nan" in (plain(gold).lower(), plain(target).lower()):
        return False
    if gold == target:
        return True
    one, other = _unassigned(gold, target)
    if " ".join(plain(one).split()) == " ".join(plain(other).split()):
        return True
    primes, others = (PRIME.findall(text.rpartition("=")[2]) for text in (one, other))
    if primes != others or any(map(SPACED.fullmatch, (one, other))):
        return False
    for read in (clock, based):
        if read(one) or read(other):
            return read(one) == read(other)
    letters = choice(one), choice(other)
    if letters[0] and letters[1]:  # `a` is another variable than `A`, but `(a)` the same choice
        return letters[0] == letters[1] or (len(one + other) > 2 and letters[0].lower() == letters[1].lower())
    spelled = words(one), words(other)
    if any(spelled) and plain(one).casefold() == plain(other).casefold():
        return True
    if all(spelled):
        return spelled[0] == spelled[1]
    terms, others = ratio(one), ratio(other)
    if terms and others:
        shares = zip((rf"\frac{{{a}}}{{{terms[0]}}}" for a in terms), (rf"\frac{{{b}}}{{{others[0]}}}" for b in others))
        return len(terms) == len(others) and all(_algebra(share, its) for share, its in shares)
    if len(terms or others or []) > 2 or SET_AND_PAIR.fullmatch(f"{one} {other}"):
        return False
    gold, target = (
        rf"\frac{{{its[0]}}}{{{its[1]}}}" if its else text for its, text in ((terms, gold), (others, target))
    )
    gold, target = decimal(gold), decimal(target)
    if re.search(r"\d\s*_", gold + target):  # an index, which math-verify would leave out
        return False
    return _measured(*split(gold), *split(target))


def _unassigned(gold: str, target: str) -> tuple[str, str]:
    """Both without `x =`, where only one has it or both name the same."""
    names = [re.match(r"([a-zA-Z])\s*=(?!=)", text) for text in (gold, target)]
    if len({name[1] for name in names if name}) > 1:
        return gold, target
    one, other = (text[name.end() :].strip() if name else text for text, name in zip((gold, target), names))
    return one, other


def _measured(gold: str, its: Counter[str], target: str, other: Counter[str]) -> bool:
    """Two values with their units, which an answer may leave out. A percent is a hundredth, or left out too."""
    if its and other and its != other:
        return False
    if ("%" in its) == ("%" in other):
        return _algebra(gold, target)
    if "%" in its:
        return _algebra(gold, target) or _algebra(rf"\frac{{{gold}}}{{100}}", target)
    in_percent = re.fullmatch(r"-?[1-9][\d,]*(\.\d+)?", gold)  # `50\%` answers 50, but `0.5\%` not 0.5
    return _algebra(gold, rf"\frac{{{target}}}{{100}}") or (in_percent is not None and _algebra(gold, target))


def _algebra(gold: str, target: str) -> bool:
    """math-verify's verdict, gold first: its comparison of equations and intervals is not symmetric."""
    from math_verify import verify

    x, y = _fraction(gold), _fraction(target)
    if x is not None and y is not None:  # most answers, and faster than asking
        return _near(x, y, "." in gold + target)
    one, other = _parsed(gold), _parsed(target)
    return verify(one, other, allow_set_relation_comp=True, timeout_seconds=0) or _same_solutions(one[0], other[0])


def _fraction(text: str) -> Fraction | None:
    number = re.fullmatch(r"([+-]?)\s*(?:(\d{0,40}\.?\d{1,40})|(?:\\frac\{)?(\d{1,40})(?:\}\{|/)(\d{1,40})\}?)", text)
    if not number or (number[4] and not int(number[4])):
        return None
    size = Fraction(number[2]) if number[2] else Fraction(int(number[3]), int(number[4]))
    return -size if number[1] == "-" else size


def _near(x: Fraction, y: Fraction, is_decimal: bool) -> bool:
    """Whether two numbers are equal, where one may be a decimal rounded to six places, and to five digits at least.

    Of two decimals neither is rounded: they may differ by the noise of floating point.
    """
    gap, size = abs(x - y), max(abs(x), abs(y))
    if not is_decimal or gap <= size * Fraction(1, 10**14):
        return is_decimal or gap == 0
    rounded = any(10**100 % z.denominator for z in (x, y))
    return rounded and round(x, 6) == round(y, 6) and gap <= size * Fraction(5, 10**5)


def _same_solutions(one: Any, other: Any) -> bool:
    """Whether two inequalities, or chains of them, in one variable have the same solutions: `2x > 10` and `x > 5`."""
    from math_verify.grader import is_equation, is_relation

    if not (is_relation(one) and is_relation(other)) or is_equation(one) or is_equation(other):
        return False
    return one.free_symbols == other.free_symbols and len(one.free_symbols) == 1 and one.as_set() == other.as_set()


@functools.lru_cache(maxsize=1024)  # a group of completions has one gold answer
def _parsed(text: str) -> list[Any]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Intersection, Union

    for word, join in (("or", Union), ("and", Intersection)):
        parts = re.split(rf"\\text\s*\{{\s*{word}\s*\}}|\\l{word}(?![a-zA-Z])|\b{word}\b", text)
        if len(parts) > 1 and all(map(RELATION.search, parts)):
            relations = [_parsed(part)[0] for part in parts]
            if len(set[Any]().union(*(relation.free_symbols for relation in relations))) == 1:
                return [join(*(relation.as_set() for relation in relations))]
    notation = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="all")
    return parse(rf"\boxed{{{text}}}", [LatexExtractionConfig(normalization_config=notation)], parsing_timeout=0)


def _relative(absolute: Any) -> Any:
    """math-verify's comparison of numbers, with decimals taken exactly and differences relative to the numbers."""
    import sympy
    from math_verify.grader import safe_sympy_doit

    def exact(x: Any) -> Any:
        x = safe_sympy_doit(x)
        return x.xreplace({number: sympy.Rational(str(number)) for number in x.atoms(sympy.Float)})

    def numeric_eq(a: Any, b: Any, *precision: int) -> bool:
        if isinstance(a, sympy.MatrixBase | sympy.MatrixExpr) or isinstance(b, sympy.MatrixBase | sympy.MatrixExpr):
            return absolute(a, b, *precision)  # which asks here again for each entry
        is_decimal = a.has(sympy.Float) or b.has(sympy.Float)
        x, y = exact(a), exact(b)
        if x == y:
            return True
        if not (x.is_number and y.is_number):
            return absolute(a, b, *precision) and (x - y).evalf(100, chop=1e-90) == 0
        if not (x.is_finite and y.is_finite):
            return False
        if x.is_Rational and y.is_Rational:
            return _near(Fraction(x.p, x.q), Fraction(y.p, y.q), is_decimal)
        gap, size = abs(x - y).evalf(50), max(abs(x).evalf(50), abs(y).evalf(50))
        return bool(gap <= min(size, 1) * 1e-40) or (
            is_decimal and bool(gap <= size * 5e-5) and absolute(a, b, *precision)
        )

    return numeric_eq


# --- the child


def serve(seconds: float, memory: int) -> None:
    """One line `[gold, target]` in, one byte out, until the parent closes the pipe or dies.

    A `true` behind them asks for math-verify's own verdict on two texts, as the original graded.
    """
    import logging
    import resource

    import sympy.core.random
    from math_verify import grader, parse, verify

    logging.disable()  # math-verify warns that its timeout is off: ours is on
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    absolute = grader.sympy_numeric_eq
    relative = _relative(absolute)
    pipe = socket.socket(fileno=0)
    pipe.sendall(b".")
    for line in pipe.makefile("r", encoding="ascii"):
        # Should the parent die while this hangs, nobody is left to kill it: SIGALRM's default action is to die, and the
        # kernel needs no help from a busy interpreter.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        sympy.core.random.seed(0)  # sympy tests equality at random points: the same ones each time
        try:
            gold, target, *plainly = json.loads(line)
            grader.sympy_numeric_eq = absolute if plainly else relative
            if plainly:
                gold, target = (parse(text, parsing_timeout=0) for text in (gold, target))
                correct = verify(gold, target, timeout_seconds=0)
            else:
                correct = equal(*(text.removeprefix(r"\boxed{").removesuffix("}") for text in (gold, target)))
        except Exception:  # math-verify catches its own; this is for the recursion and memory errors that it does not
            correct = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.sendall(b"1" if correct else b"0")


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]))
