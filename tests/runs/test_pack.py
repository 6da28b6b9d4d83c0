"""Packed logs: the same records to every reader but for digits of noise, a fraction of the bytes."""

import json
import lzma

import pytest
from fakes import cell_of, write_begun

from lrd import UserError, results
from lrd.__main__ import main
from lrd.analysis import budget
from lrd.runs import status
from lrd.runs.files import pack, read_jsonl


@pytest.fixture
def run(tmp_path):
    path = write_begun(tmp_path, cell_of(), 80, evaluated={0: 5, 80: 15})
    (path / "completions.jsonl").write_text(
        json.dumps({"step": 1, "token_rewards": [0.0, 0.5], "deposit_mask": [False, True]}) + "\n"
    )
    (path / "done.json").write_text(json.dumps({"steps": 80}))
    return path


def test_every_reader_finds_the_same(run, tmp_path):
    def read():
        steps, evals = results.read_run(run)
        found = [read_jsonl(run / f"{name}.jsonl") for name in ("metrics", "evals", "completions")]
        deposits = budget.logged_deposits(run / "completions.jsonl")
        return steps.to_dict(), evals.to_dict(), found, deposits, status.read([cell_of()], tmp_path)

    before, size = read(), sum(path.stat().st_size for path in run.glob("*.jsonl"))
    assert before[3] == ([0.5], None) and before[4][0].accuracy == 0.75 and len(before[2][0]) == 80
    pack(run)
    assert not list(run.glob("*.jsonl")) and not list(run.glob(".*"))
    assert read() == before
    assert sum(path.stat().st_size for path in run.glob("*.xz")) < size / 10
    pack(run)  # what is packed stays
    assert read() == before


def test_a_packed_number_keeps_six_digits_and_all_else_stays(run):
    row = {"step": 1234567, "loss": -4.978578438397108e-09, "share": 0.5, "text": "1.23456789\u2028é", "none": None}
    (run / "metrics.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n{1.23456789\n", encoding="utf-8")
    pack(run)
    packed = lzma.decompress((run / "metrics.jsonl.xz").read_bytes()).decode()
    assert json.loads(packed.split("\n")[0]) == row | {"loss": -4.97858e-09}
    assert packed.endswith("\n{1.23456789\n")


def test_what_is_not_finished_is_not_packed(run):
    (run / "done.json").unlink()
    with pytest.raises(UserError, match="is not finished, and only what is finished is packed"):
        pack(run)
    assert (run / "metrics.jsonl").is_file()


def test_a_log_that_is_there_twice_is_read_as_it_was_written(run):
    (run / "metrics.jsonl.xz").write_bytes(lzma.compress(b'{"step": 7}\n'))
    assert len(read_jsonl(run / "metrics.jsonl")) == 80


@pytest.mark.parametrize("broken", [b"", b"no xz", lzma.compress(b'{"step": 1}\n' * 99)[:-9]])
def test_a_broken_pack_is_an_empty_log_to_all_readers(broken, run, tmp_path):
    pack(run)
    (run / "metrics.jsonl.xz").write_bytes(broken)
    assert read_jsonl(run / "metrics.jsonl") == []
    assert status.read([cell_of()], tmp_path)[0].state == "finished"


def test_the_command_packs_what_is_finished(run, tmp_path, capsys):
    write_begun(tmp_path, cell_of(seed=1), 3, evaluated={})
    assert main(["pack", "tiny", "--runs", str(tmp_path)]) == 0
    assert "tiny: 1 of 54 cells are finished and packed" in capsys.readouterr().out
    assert (tmp_path / "tiny" / "outcome-r1-s1" / "metrics.jsonl").is_file()


def test_a_baseline_is_packed_and_read(run, tmp_path):
    path = tmp_path / "tiny" / "baseline"
    path.mkdir()
    row = {"model": "student", "problem": "p", "level": 1, "sample": "greedy", "correct": True, "length": 3}
    (path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    (path / "done.json").write_text("{}")
    before = results.baseline("tiny", tmp_path)
    assert main(["pack", "tiny", "--runs", str(tmp_path)]) == 0
    assert not (path / "samples.jsonl").is_file() and before is not None
    assert before.equals(results.baseline("tiny", tmp_path))
    (path / "samples.jsonl.xz").write_bytes(b"no xz")
    assert results.baseline("tiny", tmp_path) is None


def test_a_broken_line_is_named_in_a_packed_log_too(run, tmp_path):
    (run / "metrics.jsonl").write_text("{broken\n" + (run / "metrics.jsonl").read_text())
    pack(run)
    assert any("metrics.jsonl: line 1 cannot be read" in text for text in results.load("tiny", tmp_path).problems)
