"""What the README says was found is what the start page computes, number by number."""

import re

import pytest

from lrd import ROOT, results
from lrd.analysis import headline
from lrd.cell import grid
from lrd.report import answer, claims, setup
from lrd.runs import published


def plain(text: str) -> str:
    return " ".join(text.replace("*", "").split())


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def found():
    found = results.load("fair")
    if len(found.finished) < len(found.cells):
        pytest.skip("preset fair has not run here")
    return found


def test_the_readme_says_what_the_runs_say(found):
    passage = plain(readme().partition("**What it found.**")[2].partition("## Reproduce")[0].replace("![", "").lower())
    lines, glued = headline.lines(found), answer.glued(found)
    about = setup.about("fair", results.card("fair"))
    made = claims.claims(found, results.load("small"), lines)
    rests = f"{glued['runs']} runs over {glued['samples']}, each read {glued['read']}."
    said = [glued["outright"], rests, about["about_scale"]]
    for claim in made[:5]:
        assert claim.verdict != "not measured"
        many = claim.statement.startswith("LoRA ends ahead")  # of its fifteen intervals the README says the count
        said.append(f"{claim.verdict}: {claim.statement} {f'{claim.why}.' if many else claim.evidence}")
    for sentence in map(plain, said):
        assert sentence.lower() in passage, sentence
        passage = passage.replace(sentence.lower(), "")
    # what is left names ranks and the original's model
    assert re.findall(r"\d+(?:\.\d+)?", passage) == ["1", "3", "1.7", "1"]
    assert "fits into rank 1, so" in passage and glued["lowest"] == "rank 1"
    assert glued["consequence"].startswith("That is less than the adapter holds")  # `fits into rank 1`


def test_the_readme_says_what_the_runs_cost_and_which_study_make_reproduces(found):
    text = plain(readme())
    assert f"The comparison was {setup.cost(found)}." in text
    assert f"runs their {len(grid('tiny'))} cells (preset tiny)" in text.replace("`", "")
    assert len(readme().splitlines()) <= 90
    size = published.record("tiny")["card"]["models"]["student"]["parameters"]
    assert f"models of {size / 1e6:.1f} million parameters" in text
