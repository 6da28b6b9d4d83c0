"""Grading, pair by pair: of `grading.tsv` each has what stands in a box, a gold answer, and the verdict due."""

import time
from collections import Counter

import pytest

from lrd.analysis.verification import grading_pairs
from lrd.verifier import LONGEST, is_correct
from lrd.verifier.notation import normal, split

PAIRS = grading_pairs()


def test_the_table_is_large_and_balanced():
    verdicts = Counter(pair.verdict for pair in PAIRS)
    assert set(verdicts) == {"right", "wrong"} and min(verdicts.values()) >= 300
    assert len({(pair.box, pair.gold) for pair in PAIRS}) == len(PAIRS)
    kinds = Counter(pair.kind for pair in PAIRS)
    assert len(kinds) >= 20 and min(kinds.values()) >= 10
    assert sum(bool(pair.limit) for pair in PAIRS) <= 35


def test_every_pair_but_the_known_limits_gets_its_verdict():
    wrong = [pair for pair in PAIRS if is_correct(rf"\boxed{{{pair.box}}}", pair.gold) != (pair.verdict == "right")]
    assert wrong == [pair for pair in PAIRS if pair.limit]


def test_of_the_known_limits_few_pay_a_wrong_answer():
    """Which is the worse fault: the others refuse a right one."""
    paid = {(pair.box, pair.gold) for pair in PAIRS if pair.limit and pair.verdict == "wrong"}
    assert paid == {("cat", "act"), ("1,1", "1"), ("2x+1=5", "5"), (r"0.\overline{3}", "0.3333333")}


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("3½", r"3\frac{1}{2}"),
        ("x²", "x^{2}"),
        ("√(x+1)", r"\sqrt{x+1}"),
        ("１２", "12"),
        ("**73**", "73"),
        (r"\textcolor{red}{\underline{\frac12}}", r"\frac12"),
        (r"1\,000\,000", "1000000"),
        ("2e5", r"2\times10^{5}"),
        (r"0.1\overline{6}", r"\frac{15}{90}"),  # (16 - 1) / 90
        (r"0.\overline{27}", r"\frac{27}{99}"),
        ("2 million", r"2\times10^{6}"),
        ("$5.$", "5"),
        ("$5", r"\$5"),
        ("0.33...", "0.33..."),
    ],
)
def test_one_notation(text, latex):
    assert normal(text) == latex
    assert normal(latex) == latex


@pytest.mark.parametrize(
    ("text", "value", "powers"),
    [
        (r"12\text{ m/s}^2", "12", {"m": 1, "s": -2}),
        (r"15\text{ square inches}", "15", {"in": 2}),
        ("18 dollars", "18", {"$": 1}),
        (r"-\$5", "-5", {"$": 1}),
        (r"50\%", "50", {"%": 1}),
        (r"60\text{ mph}", "60", {"mi": 1, "h": -1}),
        ("5 m", "5", {"m": 1}),
        ("5m", "5m", {}),  # five times m
        ("2 xy", "2 xy", {}),
        (r"5\text{ or more}", r"5\text{ or more}", {}),
        ("12", "12", {}),
    ],
)
def test_units(text, value, powers):
    assert split(text) == (value, powers)


def test_a_gold_in_a_box_or_in_dollars_is_its_content():
    for gold in (r"\boxed{\frac{1}{2}}", r"$\frac{1}{2}$", r"$\boxed{\frac{1}{2}}$.", r"so it is \boxed{\frac12}"):
        assert is_correct(r"\boxed{0.5}", gold) and not is_correct(r"\boxed{0.6}", gold)
    assert is_correct(r"\boxed{2}", r"\boxed{2}") and not is_correct(r"\boxed{2}", r"\boxed{}")


@pytest.mark.parametrize("again", ["1{}x", "1{}!", "\\text{{1{}!"])
@pytest.mark.parametrize(
    "noise", [" ", "\n", " \t", "m ", "\\quad", "{", "\\text{a} ", "\\text{m}^2 ", "\\over ", "1 ", "{\\over "]
)
def test_notation_takes_no_more_than_quadratic_time(noise, again):
    text = again.format(noise * (LONGEST // len(noise)))[:LONGEST]
    start = time.perf_counter()
    split(normal(text))
    assert time.perf_counter() - start < 4  # measured: 0.5 s; a run of units was exponential


def test_an_overlong_answer_is_wrong_at_once():
    assert is_correct(rf"\boxed{{{'1+' * 100}1}}", "101")
    assert not is_correct(rf"\boxed{{{'1+' * LONGEST}1}}", str(LONGEST + 1))
