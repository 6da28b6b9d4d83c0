"""What the README says was found is what the start page computes, number by number."""

import os
import re

import pytest

from lrd import ROOT, results
from lrd.analysis import headline, objections
from lrd.cell import grid
from lrd.report import answer, claims, figures, setup
from lrd.runs import published


def plain(text: str) -> str:
    return " ".join(text.replace("*", "").split())


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def without(passage: str, sentences: list[str]) -> str:
    """The passage without these sentences, each of which it has."""
    for sentence in map(plain, sentences):
        assert sentence in passage, sentence
        passage = passage.replace(sentence, "")
    return passage


@pytest.fixture(scope="module")
def found():
    found = results.load("fair")
    if len(found.finished) < len(found.cells):
        pytest.skip("preset fair has not run here")
    return found


@pytest.fixture(scope="module")
def rest(found) -> str:
    """What the README says was found, without what is computed of the comparison."""
    lines, glued = headline.lines(found), answer.glued(found)
    enough, flat, ahead = (claim(found, lines) for claim in (claims.enough, claims.flat, claims.ahead))
    assert glued["consequence"].startswith("That is less than the adapter holds")  # `fits into rank 1`
    passage = plain(readme().partition("**What it found.**")[2].partition("## Reproduce")[0])
    return without(
        passage,
        [
            glued["outright"],
            *(f"{claim.verdict.capitalize()}: {claim.statement} {claim.evidence}" for claim in (enough, flat)),
            f"{ahead.verdict.capitalize()}: {ahead.statement} {ahead.why}.",  # of its many intervals, the count
            f"{glued['runs']} runs over {glued['samples']}, each read {glued['read']}.",
            setup.about("fair", results.card("fair"))["about_scale"],
        ],
    )


def test_the_readme_says_what_the_runs_say(rest):
    assert "All that an outcome reward says in such a run fits into rank 1, so" in rest
    assert set(re.findall(r"\d+(?:\.\d+)?", rest.partition("Shown at equal")[0])) <= {"1"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_readme_says_what_the_capacity_experiments_say(rest):
    experiments = objections.experiments()
    made = [claim(experiments) for claim in (claims.room, claims.denser)]
    assert all(claim.verdict != "not measured" for claim in made)
    left = without(rest, [f"{c.verdict.capitalize()}: {c.statement} {c.evidence}" for c in made])
    numbers = re.findall(r"\d+(?:\.\d+)?", left)
    assert numbers == ["1", "3", "1.7", "1"]  # pass@1 in the figure's own text, the original's model, rank 1


def test_the_readmes_figure_is_that_of_the_start_page(found):
    """By what its marks say of themselves, for fonts move the rest; `LRD_SENTENCES=write` draws it anew."""
    assert "](book/answer.svg)" in readme()
    path, svg = ROOT / "book/answer.svg", figures.rank_curves(headline.with_reading(found), "read", "pass@1").svg
    if os.environ.get("LRD_SENTENCES") == "write":
        path.write_text(svg, encoding="utf-8")
    marks = re.compile(r'aria-label="([^"]*)"')
    assert marks.findall(path.read_text(encoding="utf-8")) == marks.findall(svg)
    assert len(marks.findall(svg)) > len(found.finished)


def test_the_readme_says_what_the_runs_cost_and_which_study_make_reproduces(found):
    text = plain(readme()).replace("`", "")
    assert f"The comparison was {setup.cost(found)}." in text
    assert f"runs their {len(grid('tiny'))} cells (preset tiny)" in text
    assert len(readme().splitlines()) <= 90
    size = published.record("tiny")["card"]["models"]["student"]["parameters"]
    assert f"models of {size / 1e6:.1f} million parameters" in text
