"""Models and data sets of the Hub, from one on the loopback interface: fetched once, then read without a network."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import SUBJECTS, hendrycks, math_500, serve

from lrd import ROOT

PRM = "peiyi9979/math-shepherd-mistral-7b-prm"


@pytest.fixture
def shelf(tmp_path, checkpoint) -> Path:
    """What our Hub has: the paper's ids, small stand-ins behind them."""
    root = tmp_path / "hub"
    rows = {
        s: [{"problem": f"{s}?", "level": "Level 3", "type": t, "solution": "\\boxed{7}"}] for s, t in SUBJECTS.items()
    }
    hendrycks(root / "datasets/EleutherAI/hendrycks_math/main", rows)
    problems = [{"problem": str(i), "answer": str(i), "level": 1, "unique_id": f"test/{i}.json"} for i in range(120)]
    math_500(root / "datasets/HuggingFaceH4/MATH-500/main", problems)
    shutil.copytree(checkpoint("qwen3"), root / "models/Qwen/Qwen3-1.7B-Base/main")
    shutil.copytree(checkpoint("qwen3"), root / "models" / PRM / "refs-pr-5")
    pickled = shutil.copytree(checkpoint("qwen3"), root / "models" / PRM / "main")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    return root


@pytest.fixture
def ask(tmp_path) -> Callable[..., list]:
    """Runs a program in a process of its own, with a cache of its own, and gives what it prints as JSON."""

    def run(code: str, endpoint: str, *, offline: bool = False) -> list:
        names = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": str(int(offline))}
        environment = os.environ | names | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


DATA = """
import json
from lrd.data.problems import held_out, train_pool
pool, dropped = train_pool("EleutherAI/hendrycks_math")
print(json.dumps([[p.problem for p in pool], dropped, [p.id for p in held_out("HuggingFaceH4/MATH-500", 100)]]))
"""
SAID = """
import json
from lrd import UserError
from lrd.data import hub
try:
    hub.model_folder({name!r}, "student", weights=True)
    print(json.dumps(["found"]))
except UserError as error:
    print(json.dumps([str(error)]))
"""


@pytest.mark.slow
def test_data_sets_are_fetched_once_and_then_read_without_the_hub(shelf, ask):
    with serve(shelf) as (endpoint, _):
        first = ask(DATA, endpoint)
    assert first[0] == [f"{subject}?" for subject in SUBJECTS] and first[1] == 0
    assert len(set(first[2])) == 100
    assert ask(DATA, endpoint) == first  # the Hub is gone, and is not even asked whether there is something new
    assert ask(DATA, endpoint, offline=True) == first


def test_weights_come_when_they_are_needed_and_pickles_never(shelf, ask):
    code = f"""
import json
from lrd.data import hub
names = lambda folder: sorted(path.name for path in folder.iterdir())
print(json.dumps([names(hub.model_folder({PRM!r}, "PRM", weights=w)) for w in (False, True)]))
"""
    with serve(shelf) as (endpoint, asked):
        small, whole = ask(code, endpoint)
    assert "config.json" in small and "tokenizer.json" in small and "model.safetensors" not in small
    assert set(whole) == {*small, "model.safetensors"}
    assert not any("pytorch_model.bin" in request for request in asked)
    assert ask(code, endpoint, offline=True) == [whole, whole]


def test_a_download_that_was_cut_is_completed(shelf, ask, tmp_path):
    """A snapshot that lacks a file is not taken for the whole."""
    code = SAID.format(name="Qwen/Qwen3-1.7B-Base")
    with serve(shelf) as (endpoint, _):
        assert ask(code, endpoint) == ["found"]
        [weights] = (tmp_path / "cache").rglob("model.safetensors")
        weights.unlink()
        assert "not in the local cache" in ask(code, endpoint, offline=True)[0]
        assert ask(code, endpoint) == ["found"] and weights.exists()


@pytest.mark.parametrize(
    "name, said",
    [
        ("no-such/model", "the Hub has none of that name, or a private one"),
        ("a/b/c", "no id on the Hub"),
        ("Qwen/Qwen3-1.7B-Base", "found"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_a_sentence(shelf, ask, name, said):
    with serve(shelf) as (endpoint, _):
        [got] = ask(SAID.format(name=name), endpoint)
    assert said in got and "\n" not in got and len(got) < 300


def test_a_hub_that_does_not_answer_is_not_waited_for(ask):
    """A name that resolves and a port that takes the connection and says nothing: the worst of networks."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        [said] = ask(SAID.format(name="Qwen/Qwen3-1.7B-Base"), endpoint)
    assert "cannot load student 'Qwen/Qwen3-1.7B-Base'" in said and "cannot be reached" in said and "\n" not in said
    assert time.monotonic() - start < 30  # one request of 5 s; the rest is for a busy machine to start Python


@pytest.mark.parametrize("offline", [False, True])
def test_a_paper_cell_without_a_network_says_so_at_once(offline, tmp_path):
    """Before a kernel starts."""
    command = "-m lrd cell paper --regime outcome --rank 1 --seed 0 --runs".split() + [str(tmp_path / "runs")]
    names = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": str(int(offline))}
    start = time.monotonic()
    done = subprocess.run([sys.executable, *command], env=os.environ | names, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and time.monotonic() - start < 20
    assert done.stderr.startswith("lrd: cannot load student 'Qwen/Qwen3-1.7B-Base': it is not in the local cache")
    assert done.stderr.count("\n") == 1 and ("HF_HUB_OFFLINE" in done.stderr) == offline
