"""What the README says was found is what the start page computes, number by number."""

import re

import pytest

from lrd import ROOT, results
from lrd.report import answer

NAMES = ("short", "rise", "verdict", "near", "together", "unjudged", "read", "samples")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_the_readme_says_what_the_runs_say():
    found = results.load("fair")
    if len(found.finished) < len(found.cells):
        pytest.skip("preset fair has not run here")
    passage = (ROOT / "README.md").read_text("utf-8").partition("**What it found**")[2].partition("![")[0]
    assert len(passage.strip().splitlines()) <= 12
    glued, rest = answer.glued(found), plain(passage)
    for name in NAMES:
        said = plain(glued[name])
        assert said in rest
        rest = rest.replace(said, "") if said else rest
    assert re.findall(r"\d+", rest) == ["95"]  # the intervals' level; every other number is in a computed sentence
