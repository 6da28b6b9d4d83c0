"""The page on one's own study, from nothing to a figure: its files and commands as they are printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrd import ROOT, results
from lrd.cell import Cell
from lrd.runs.files import write_json
from lrd.testbed import build, recipe

PAGE = (ROOT / "book" / "study.md").read_text()
EXAMPLE = PAGE[PAGE.index("## From nothing to a figure") : PAGE.index("**In vLLM**")]
BLOCK = re.compile(r"```(?:\{code-block\} \w+\n:caption: (?P<file>\S+)|(?P<bash>bash))\n(?P<text>.*?\n)```", re.DOTALL)


def script() -> str:
    """The blocks in their order, as one script of a shell: a file is written, a command runs."""
    return "".join(
        f"cat > {block['file']} <<'THE-END'\n{block['text']}THE-END\n" if block["file"] else block["text"]
        for block in BLOCK.finditer(EXAMPLE)
    )


@pytest.fixture
def home(tmp_path) -> Path:
    """A home with a clone of its own in it, as the page has it, and the testbed's own student, trained alone."""
    clone = tmp_path / "lrd"
    shutil.copytree(ROOT / "lrd", clone / "lrd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "book", "pyproject.toml"):
        (clone / name).symlink_to(ROOT / name)
    (clone / ".venv").symlink_to(sys.prefix)
    into, what, wanted = clone / "models" / "tiny", recipe.load("tiny"), recipe.digest("tiny", torch.__version__)
    if (results.card("tiny", tmp_path) or {}).get("recipe_hash") == wanted:
        shutil.copytree(ROOT / "models" / "tiny", into)
        return tmp_path
    into.mkdir(parents=True)
    (world,) = recipe.worlds(what).values()
    card = build._train(
        "student", world | {"kept": tmp_path}, into, Cell.load("tiny", regime="outcome", rank=1, seed=0)
    )
    write_json(into / "card.json", {"recipe_hash": wanted, "seconds": 0.0, "models": {"student": card}})
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_example_runs_as_printed_and_plain_peft_finds_the_pass_at_1_of_the_card(home):
    env = os.environ | {"HOME": str(home), "PYTHONPATH": str(home / "lrd"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["bash", "-e"], input=script(), cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = home / "lrd" / "runs" / "mine"
    assert len(list(runs.glob("*/done.json"))) == 9 and (home / "study" / "mine.png").stat().st_size > 5000

    # What the page says was printed has the form, and the arms, of what is printed.
    shown = re.search(r"```text\n(.*?)```", EXAMPLE, re.DOTALL)
    assert shown
    number, verdict = r"[+-]\d\.\d{3}", "(ahead|behind|equivalent|undecided)"
    form = rf"(r\d+) minus full fine-tuning: {number} \[{number}, {number}\], {verdict}"
    printed = re.findall(rf"(?m)^{form}$", done.stdout)
    assert [arm for arm, _ in printed] == ["r1", "r16"] == [arm for arm, _ in re.findall(rf"(?m)^{form}$", shown[1])]

    # The student learns from this reward, the frame has the runs, and the card and plain PEFT agree with them.
    adapter = runs / "my_rewards.working-r1-s0" / "adapter"
    summary = results.summary(*results.read_run(adapter.parent))
    card = dict(re.findall(r"(?m)^\| (.+?) \| (.+) \|$", (adapter / "README.md").read_text()))
    assert float(card["pass@1 before"]) == pytest.approx(summary["base"], abs=5e-5)
    assert float(card["pass@1 after"]) == pytest.approx(summary["final"], abs=5e-5)
    assert summary["final"] > summary["base"] + 0.2
    frame = re.search(r"(?m)^\d+ +r1 +0 +([\d.]+) +([\d.]+)$", done.stdout)
    assert frame and float(frame[2]) == pytest.approx(summary["final"])
    plain = re.search(r"(?m)^pass@1 (\d\.\d{4})$", done.stdout)
    assert plain and float(plain[1]) == pytest.approx(summary["final"], abs=0.011)  # two answers of 200, by rounding


def test_the_page_prints_a_reward_of_ten_lines_and_every_file_that_it_runs():
    files = {block["file"]: block["text"] for block in BLOCK.finditer(EXAMPLE) if block["file"]}
    assert len([line for line in files["my_rewards.py"].splitlines() if line]) <= 10
    assert set(re.findall(r"(?:python|matrix) (?:\./)?([\w.]+)", script())) <= files.keys()
