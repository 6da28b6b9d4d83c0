"""Rewards of one's own by their import path, from a directory outside of the library."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from fakes import call

from lrd import ROOT, UserError, results, rewards
from lrd.cell import Cell, grid
from lrd.data.problems import Problem
from lrd.report import figures, gallery
from lrd.rewards import imported
from lrd.runs import sources
from lrd.runs.files import read_json, read_jsonl

CPU = torch.device("cpu")
OWN = """
import numpy as np

NUMBER = 3

def graded(prompts, completions, answer, level, **columns):
    assert set(columns) == {"id", "problem", "subject", "solution", "completion_ids"}
    assert prompts[0] == "Problem: " + columns["problem"][0] + "\\n\\nSolution: " and level == [None] * len(prompts)
    return [len(text) + 10 * float(gold) + len(ids) / 100
            for text, gold, ids in zip(completions, answer, columns["completion_ids"])]

def sometimes(completions, **columns):
    return [None if len(text) < 15 else 1 for text in completions]

def array(completions, **columns):
    return np.arange(len(completions)) / 2

def few(completions, **columns):
    return [1.0]

def text(completions, **columns):
    return ["1.0"] * len(completions)

def not_a_number(completions, **columns):
    return [float("nan")] * len(completions)

def huge(completions, **columns):
    return [1e39] * len(completions)

def alone(completions, **columns):
    return 1.0

def raises(completions, **columns):
    return [1 / len(text) for text in completions]

def without_columns(completions):
    return [1.0] * len(completions)
"""
BAD = [
    ("nowhere:f", "there is no module 'nowhere' in {here}, nor is one installed"),
    ("pack.nowhere:f", "there is no module 'pack.nowhere' in {here}"),
    ("lame:f", "ModuleNotFoundError: No module named 'nothing_of_that_name', at line 2 of {here}/lame.py"),
    ("broken:f", r"SyntaxError: .*broken.py, line 1\)$"),
    ("mine:nothing", "{here}/mine.py has no function 'nothing'"),
    ("mine:NUMBER", "NUMBER in {here}/mine.py is no function"),
    ("mine:few", "the reward returned 1 values; it has to return 4 finite numbers, one a completion, or None"),
    ("mine:text", "the reward returned '1.0'; it has to return 4 finite"),
    ("mine:not_a_number", "the reward returned nan; it has to"),
    ("mine:huge", "the reward returned 1e"),
    ("mine:alone", "the reward returned a float; it has to"),
    ("mine:raises", "ZeroDivisionError: .*, at line 3. of {here}/mine.py"),
    ("mine:without_columns", r"prompts, completions and \*\*columns of 4 made-up .*: without_columns\(\) got an unexp"),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory of somebody's own, from which `lrd` is called."""
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "lame.py").write_text("\nimport nothing_of_that_name\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "inner.py").write_text(
        "from . import near\nimport os, beside as b\nfrom lrd.results import load\n"
    )
    (tmp_path / "pack" / "near.py").write_text("x = 1\n")
    (tmp_path / "beside.py").write_text("x = 1\n")
    (tmp_path / "unused.py").write_text("x = 1\n")
    monkeypatch.setenv(sources.CALLED_FROM, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "lame", "broken", "pack", "pack.inner", "pack.near", "beside"):
        sys.modules.pop(name, None)


def reward_of(function, make_cell, tokenizer, rollouts):
    reward = rewards.load(make_cell(regime=f"mine:{function}"), tokenizer, CPU)
    return reward(rollouts, torch.zeros(rollouts.completion_mask.shape))


def test_values_lie_on_last_tokens_and_columns_are_the_problems_fields(here, make_cell, tokenizer, mixed):
    deposits = reward_of("graded", make_cell, tokenizer, mixed)
    assert not deposits.dense
    lengths = mixed.lengths.tolist()
    assert lengths[-1] == 0  # nothing sampled, nowhere to deposit
    want = [[i, n - 1] for i, n in enumerate(lengths) if n]
    assert deposits.deposit_mask.nonzero().tolist() == want
    by_hand = [len(text) + 60 + n / 100 for text, n in zip(mixed.texts, lengths)]
    assert deposits.token_rewards[deposits.deposit_mask].tolist() == pytest.approx(by_hand[:3])
    deposits.check(mixed)


def test_none_deposits_nothing_and_an_array_is_a_list(here, make_cell, tokenizer, mixed):
    deposits = reward_of("sometimes", make_cell, tokenizer, mixed)
    assert [len(text) >= 15 for text in mixed.texts] == [True, True, True, False]
    assert deposits.deposit_mask.sum(1).tolist() == deposits.trajectory_rewards.tolist() == [1, 1, 1, 0]
    assert imported.checked([True, None, torch.tensor(0.5)], 3) == [1.0, None, 0.5]
    assert reward_of("array", make_cell, tokenizer, mixed).trajectory_rewards.tolist() == [0, 0.5, 1, 0]


@pytest.mark.parametrize(("regime", "said"), BAD)
def test_what_cannot_work_is_one_sentence(here, make_cell, tokenizer, regime, said):
    pool = [Problem("0", "6a*2b-6", "6", solution="a6*2=2\nThe answer is \\boxed{6}."), Problem("1", "1a+2", "3")]
    said = said.format(here=re.escape(str(here)))
    with pytest.raises(UserError, match=f"the reward '{regime}' (fails|cannot be imported).*{said}"):
        rewards.check(make_cell(regime=regime), tokenizer, pool)
    for fine in ("mine:graded", "mine:sometimes", "mine:array"):
        rewards.check(make_cell(regime=fine), tokenizer, [p for p in pool if p.level is None])


def test_during_training_it_is_an_error_and_no_refusal(here, make_cell, tokenizer, rollouts):
    with pytest.raises(ValueError, match="the reward returned 1 values; it has to return 4 finite numbers"):
        reward_of("few", make_cell, tokenizer, rollouts)


def test_a_cell_takes_an_import_path_and_its_directory_has_a_name_of_its_own(monkeypatch, tmp_path):
    cell = Cell.load("tiny", regime="pack.inner:score", rank=4, seed=0)
    assert cell.name == "pack.inner.score-r4-s0" and cell.config["regime"] == "pack.inner:score"
    assert len(grid("tiny", {"regime": ["outcome", "pack.inner:score", "pack:inner", "a_b:c", "a:b_c"]})) == 5 * 18
    for regime in ("a:", ":b", "a:b:c", "a/b:c", "../a:b", "a b:c", "a:b.c", "1a:b", "a:b\n", "é:b", "a" * 99 + ":b"):
        with pytest.raises(UserError, match="unknown regime .*, supervised, module:function of your own, or a sum"):
            Cell.load("tiny", regime=regime, rank=4, seed=0)
    from lrd import presets

    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    (tmp_path / "tiny.toml").write_bytes((ROOT / "lrd" / "presets" / "tiny.toml").read_bytes())
    (tmp_path / "own.toml").write_text(
        'base = "tiny"\n[axes]\nregime = ["outcome", "m:f"]\nrank = [1]\nseed = [0]\n'
        '[regime."m:f"]\nsteps = 7\n[rates]\nlora = 1e-3\n"m:f" = { lora = 0.5 }\n'
    )
    assert [(c.name, c.steps, c.learning_rate) for c in grid("own")] == [
        ("outcome-r1-s0", 80, 1e-3),
        ("m.f-r1-s0", 7, 0.5),
    ]


def test_its_code_counts_with_what_it_imports_from_beside_it(here):
    def files():
        return sources.digests("cell", ["pack.inner:f"])

    names = {"pack/inner.py", "pack/near.py", "beside.py", "lrd/rewards/imported.py", "lrd/results.py", "lrd/grpo.py"}
    before = files()
    assert names < before.keys() and "unused.py" not in before and "lrd/rewards/process.py" not in before
    assert sources.own(["pack.inner:f", "outcome"]).keys() == {"pack/inner.py", "pack/near.py", "beside.py"}
    (here / "beside.py").write_text("x = 2\n")
    assert sources.changed(before, files()) == ["beside.py"]
    # Of what is installed, the version says enough; what is not there is refused elsewhere.
    assert sources.own(["numpy:mean", "json:dumps", "nowhere:f", "lrd.rewards.outcome:load"]) == {}
    (here / "pack" / "inner.py").write_text("from . import (\nimport ,\n")
    assert "pack/inner.py" in files()


# --- from outside of the library, through the command line


def page() -> tuple[str, str]:
    """The module and the command that the page on one's own study shows."""
    text = (ROOT / "book" / "study.md").read_text()
    section = text[text.index("## A reward of your own") :]
    module = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    command = re.search(r"```bash\n(lrd cell .*?)\n", section)
    assert module and command
    return module[1], command[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A directory outside of the clone, with the module of the page."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_rewards.py").write_text(page()[0])
    return tmp_path / "mine"


def test_the_reward_of_the_page_trains_a_cell_as_printed(as_options, folder, tmp_path):
    module, command = page()
    assert len(module.splitlines()) <= 10
    asked = [*command.split()[1:], *as_options, "--set", "logged_completions=16", "--runs", tmp_path]
    done = call(asked, folder)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "tiny" / "my_rewards.brevity-r1-s0"
    assert done.stdout.startswith(f"{path.name}: {path}\n") and done.stdout.endswith(f"{path.name}: finished\n")
    # The logged reward is what the module gives, computed by hand.
    metrics, logged = read_jsonl(path / "metrics.jsonl"), read_jsonl(path / "completions.jsonl")
    rows = [row for row in logged if row["step"] == 2]
    texts = ["".join(token for token in row["tokens"] if not re.fullmatch("<.*>", token)) for row in rows]
    by_hand = [(f"\\boxed{{{row['answer']}}}" in text) - len(text) / 100 for row, text in zip(rows, texts)]
    assert len(rows) == 16 and len(set(by_hand)) > 1
    assert metrics[1]["reward"] == pytest.approx(sum(by_hand) / 16, abs=1e-6)
    for row, value in zip(rows, by_hand):
        n = len(row["tokens"])
        assert row["deposit_mask"] == [False] * (n - 1) + [True]
        assert row["token_rewards"] == [0.0] * (n - 1) + [pytest.approx(value, abs=1e-6)]
    # What a rerun needs is on record, and nothing of where the module lay.
    record = read_json(path / "provenance.json")
    assert "--regime my_rewards:brevity --rank 1 --seed 0" in record["command"]
    (code,) = record["code"].values()
    assert code["own"] == {"my_rewards.py": module} and "my_rewards.py" in code["files"]
    assert str(folder) not in (path / "cell.ipynb").read_text()
    assert read_json(path / "config.json")["regime"] == "my_rewards:brevity"

    shown = call(["status", "tiny", "--runs", tmp_path], folder)
    assert shown.returncode == 0 and re.search(rf"{path.name}.*finished", shown.stdout), shown.stdout
    off = results.load("tiny", tmp_path).off_grid
    assert off is not None and list(off.cells.regime) == off.regimes == ["my_rewards:brevity"]
    assert all(">my_rewards:brevity<" in draw(off).svg for draw in (figures.learning_curves, figures.rank_curves))
    assert "/tiny/my_rewards.brevity-r1-s0/" in gallery.rows(off, tmp_path).cell[0]
    (folder / "my_rewards.py").write_text(module + "\n")
    again = call(asked, folder)
    assert "nothing was run" in again.stdout and "(my_rewards.py changed since)" in again.stdout
    (folder / "my_rewards.py").unlink()
    assert "nothing was run" in call(asked, folder).stdout


@pytest.mark.parametrize(("regime", "said"), [("my_rewards:brevty", "has no function"), ("my_reward:f", "no module")])
def test_the_command_line_refuses_before_anything_is_written(as_options, folder, tmp_path, regime, said):
    words = ["tiny", "--rank", 1, "--seed", 0, "--regime", regime, *as_options, "--runs", tmp_path / "runs"]
    done = call(["cell", *words], folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_preset_may_name_it_and_every_command_takes_that(settings, folder, tmp_path):
    """In a clone of its own, since a preset is a file of the library."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "lrd", clone / "lrd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "book"):
        (clone / name).symlink_to(ROOT / name)
    cell = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    axes = '[axes]\nregime = ["my_rewards:brevity", "outcome"]\nrank = [1]\nseed = [0]\n'
    (clone / "lrd" / "presets" / "own.toml").write_text(f'base = "tiny"\n{axes}[cell]\n{cell}')
    for command in ("matrix", "rewards", "doctor", "status"):
        done = call([command, "own"], folder, clone)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert command == "rewards" or "my_rewards.brevity-r1-s0" in done.stdout
    runs = clone / "runs" / "own"
    assert all((runs / f"{name}-r1-s0" / "done.json").is_file() for name in ("my_rewards.brevity", "outcome"))
    assert "my_rewards:brevity" in (runs / "rewards" / "rewards.ipynb").read_text()
    assert "my_rewards.py" in read_json(runs / "rewards" / "done.json")["code"]
