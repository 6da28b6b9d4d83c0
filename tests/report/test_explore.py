"""The Explore page: what it lets choose is what was measured, and it stands without a script, too."""

import json
import re

import pytest
from fakes import write_run

from lrd import results
from lrd.report import explore, figures


@pytest.fixture
def found(tmp_path):
    """Two finished cells, one that failed after ten steps."""
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 15, 20: 16})
    write_run(tmp_path, "outcome", None, 1, {0: 5, 10: 15, 20: 18})
    failed = write_run(tmp_path, "process", 1, 0, {0: 5, 10: 2})
    (failed / "done.json").unlink()
    (failed / "failed.json").write_text('{"error": "Diverged"}')
    return results.load("tiny", tmp_path)


def test_the_choices_are_what_was_run_and_measured(found):
    data = explore.choices(found)
    assert [cell["cell"] for cell in data["cells"]] == ["outcome-r1-s0", "process-r1-s0", "outcome-full-s1"]
    assert [cell["state"] for cell in data["cells"]] == ["finished", "failed", "finished"]
    assert data["cells"][0]["href"] == "../runs/tiny/outcome-r1-s0/cell.html"
    assert data["seeds"] == [["0", "0"], ["1", "1"]] and ["full", "full fine-tuning"] in data["arms"]
    assert data["metrics"]["pass@1"] == {
        "title": "greedy pass@1",
        "steps": [0, 10, 20],
        "values": [[0.25, 0.75, 0.8], [0.25, 0.1, None], [0.25, 0.75, 0.9]],
    }
    assert "reward" in data["metrics"] and "entropy" not in data["metrics"]  # the latter was not measured
    assert data["colours"]["domain"][-1] == "FullFT" and data["colours"]["range"][-1] == "#000000"


def test_the_page_carries_every_preset_and_stands_without_a_script(found, tmp_path):
    text = explore.page([found, results.load("small", tmp_path)])
    data = dict(re.findall(r"data-preset='([^']+)'>(.*?)</script>", text))
    assert list(data) == ["tiny", "small"]
    assert json.loads(data["tiny"]) == json.loads(json.dumps(explore.choices(found)))
    assert json.loads(data["small"])["cells"] == [] and json.loads(data["small"])["metrics"] == {}
    assert "<img src='data:image/svg+xml;base64," in text
    row = "<tr><th><a href='../runs/tiny/process-r1-s0/cell.html'>process-r1-s0</a></th><td>failed</td>"
    assert f"{row}<td>0.1</td><td>0.1</td><td>0.25</td></tr>" in text


def test_a_page_of_nothing(tmp_path):
    text = explore.page([results.load("tiny", tmp_path)])
    assert "lrd-explore" in text and "<tbody></tbody>" in text


def test_a_line_a_cell_dotted_if_it_did_not_finish(found):
    frame = found.measured("pass@1").merge(explore.rows(found)[["cell", "state", "name", "href"]], on="cell")
    figure = figures.every_cell(frame, "pass@1", found.regimes, found.arms)
    assert len(figure.spec["data"]["values"]) == 8
    assert figure.svg.count('stroke-dasharray="2,3"') == 1  # the cell that failed
    assert "greedy" not in figure.svg and ">pass@1</text>" in figure.svg
