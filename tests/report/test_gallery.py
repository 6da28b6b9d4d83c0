"""The gallery's rows: numbers as they are on disk, order as in the matrix, and nothing that a run says becomes HTML."""

import json
import math
import shutil

import pandas as pd
import pytest
from fakes import write_run

from lrd import results
from lrd.report import gallery


@pytest.fixture
def runs(tmp_path):
    """One finished cell that was resumed on a GPU host, one without provenance."""
    path = write_run(tmp_path, "outcome", 16, 1, {0: 5, 5: 20, 10: 15})
    record = {
        "hardware": {"cpu": "A(R) <b>CPU</b>", "cores": 8, "memory_gib": 31.5},
        "run": {"device": "cuda", "models": {"student": "<b>ab12"}},
        "sessions": [{"cpu_seconds": 1.5}, {"cpu_seconds": 2}],
    }
    (path / "provenance.json").write_text(json.dumps(record))
    broken = write_run(tmp_path, "outcome", 4, 0, {0: 5, 10: 10})
    (broken / "provenance.json").write_text("[")
    return tmp_path


def test_a_row_a_cell(runs):
    rows = gallery.rows(results.load("tiny", runs), runs)
    assert len(rows) == 54
    names = [link.split(">")[1].split("<")[0] for link in rows.cell]
    assert names[:4] == ["outcome-r1-s0", "outcome-r1-s1", "outcome-r1-s2", "outcome-r4-s0"]  # not r1, r16, r256, r4
    row = rows.iloc[names.index("outcome-r16-s1")]
    assert row.cell == (
        "<a href='../runs/tiny/outcome-r16-s1/cell.html' title='tiny/outcome-r16-s1'>outcome-r16-s1</a>"
    )
    assert (row.base, row.peak, row.final, row.area) == (0.25, 1.0, 0.75, pytest.approx(0.75))
    assert (row.state, row.seconds, row["CPU s"]) == ("finished", 5.0, 3.5)
    assert row.student == "&lt;b&gt;ab12" and rows.student.iloc[0] == ""
    assert row.hardware == "cuda, A &lt;b&gt;CPU&lt;/b&gt;, 8 cores, 31.5 GiB"
    broken, absent = rows.iloc[names.index("outcome-r4-s0")], rows.iloc[0]
    assert broken.final == 0.5 and broken.hardware == "" and math.isnan(broken["CPU s"])
    assert (absent.cell, absent.state, absent["pass@1"]) == (
        "<span title='tiny/outcome-r1-s0'>outcome-r1-s0</span>",
        "absent",
        "",
    )


def test_the_table_asks_nobody(runs):
    text = gallery.table([results.load("tiny", runs)], runs)
    assert "<b>CPU" not in text and "src=" not in text and "<link" not in text
    assert len(gallery.table([results.load("tiny", runs / "none")], runs / "none")) > 0


def test_cells_of_two_presets_with_the_same_names(runs):
    shutil.copytree(runs / "tiny" / "outcome-r16-s1", runs / "small" / "outcome-r16-s1")
    (runs / "paper" / "outcome-r1-s0").mkdir(parents=True)  # nothing was begun in it
    assert results.with_runs(runs) == ["tiny", "small"]
    text = gallery.table([results.load(preset, runs) for preset in results.with_runs(runs)], runs)
    for preset in ("tiny", "small"):
        assert f"<a href='../runs/{preset}/outcome-r16-s1/cell.html' title='{preset}/outcome-r16-s1'>" in text
        assert f"<span title='{preset}/process-full-s2'>" in text
    assert "tiny: 2 of 54 cells finished" in text and "small: 1 of 90 cells finished" in text


def test_a_sparkline():
    drawn = gallery.sparkline(pd.DataFrame({"step": [0, 10], "pass@1": [0.0, 1.0]}), "red")
    assert f"points='3.0,{gallery.HEIGHT - 2:.1f} {gallery.WIDTH - 3:.1f},2.0'" in drawn
    assert "aria-label='pass@1 0.000 at step 0, 1.000 at step 10'" in drawn
    assert gallery.sparkline(None) == ""
    assert "nan" not in gallery.sparkline(pd.DataFrame({"step": [0], "pass@1": [0.5]}))


@pytest.mark.parametrize("sessions", [None, [], [{}], [{"cpu_seconds": 1.0}, {"started": "x"}], "x", [1]])
def test_cpu_seconds_that_nobody_measured(sessions):
    assert math.isnan(gallery.cpu_seconds({"sessions": sessions}))
