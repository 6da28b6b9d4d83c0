"""What is committed of the runs: records and executed notebooks, never weights, and small enough to be cloned."""

import functools
import random
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from lrd import ROOT

MOST = 36 * 2**20  # bytes of all published runs together, as git packs and sends them
RECORDS = re.compile(
    r"runs/published/[\w-]+\.(?:json|csv)\.xz|"
    r"runs/(?!published/)[\w.-]+/(?:"
    r"(?!baseline/|rewards/)[^/]+/(?:cell\.ipynb|(?:config|provenance|done)\.json|(?:metrics|evals|validation|completions)\.jsonl\.xz)"
    r"|baseline/(?:baseline\.ipynb|samples\.jsonl\.xz|done\.json)|rewards/(?:rewards\.ipynb|done\.json))"
)
NAMES = [f"{name}.jsonl.xz" for name in ("metrics", "evals", "completions")]
NAMES += ["cell.ipynb", "config.json", "provenance.json", "done.json"]


def faults(files: Mapping[str, bytes], most: int = MOST) -> list[str]:
    """What is wrong with these files below runs/, keyed by their path in the repository; runs/bench is not a preset."""
    runs = {path: text for path, text in files.items() if not path.startswith("runs/bench/")}
    found = [f"{path} is no record of a run" for path in runs if not RECORDS.fullmatch(path)]
    found += [f"{path} is a user's own" for path in runs if path.startswith("runs/tiny/")]
    size = packed(runs.values())
    return found + ([f"{size} bytes are more than {most}"] if size > most else [])


def packed(texts: Iterable[bytes]) -> int:
    """Bytes of a pack of these files, in which git keeps those that resemble each other as differences."""
    with tempfile.TemporaryDirectory() as folder:
        git = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True)
        git(["git", "init", "-q"])
        names = []
        for i, text in enumerate(texts):
            Path(folder, str(i)).write_bytes(text)
            names.append(f"{i}\n")
        ids = git(["git", "hash-object", "-w", "--no-filters", "--stdin-paths"], input="".join(names).encode()).stdout
        return len(git(["git", "pack-objects", "-q", "--stdout"], input=ids).stdout)


@pytest.fixture(scope="module")
def kept() -> dict[str, bytes]:
    """Every file below runs/ that is in git or would be added."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "runs"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return {name: path.read_bytes() for name in listed.split("\0") if (path := ROOT / name).is_file()}


def test_the_committed_runs(kept):
    assert faults(kept) == []


def test_a_finished_cell_is_committed_whole(kept):
    cells = {str(Path(path).parent) for path in kept if path.endswith(("/cell.ipynb", "/config.json"))}
    assert [f"{cell}/{name}" for cell in cells for name in NAMES if f"{cell}/{name}" not in kept] == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("runs/small/outcome-r1-s0/adapter/adapter_model.safetensors", "no record"),
        ("runs/small/outcome-r1-s0/checkpoint/state.safetensors", "no record"),
        ("runs/small/outcome-r1-s0/model.safetensors", "no record"),
        ("runs/small/outcome-r1-s0/lock", "no record"),
        ("runs/small/baseline/cell.ipynb", "no record"),
        ("runs/small/outcome-r1-s0/evals.jsonl", "no record"),  # not packed
        ("runs/small/card.json", "no record"),
        ("runs/small/small.json.xz", "no record"),
        ("runs/published/law.csv", "no record"),
        ("runs/published/outcome-r1-s0/done.json", "no record"),
        ("runs/tiny/outcome-r1-s0/done.json", "a user's own"),
    ],
)
def test_what_does_not_belong_is_noticed(path, said):
    assert [said in fault for fault in faults({path: b""})] == [True]


def test_too_much_is_noticed():
    noise = random.Random(0).randbytes(4000)
    assert faults({"runs/small/x/evals.jsonl.xz": noise}, most=2000) != []
    assert faults({"runs/small/x/cell.ipynb": b"the same " * 4000}, most=2000) == []  # as git stores it
    alike = {f"runs/small/x{i}/cell.ipynb": noise + str(i).encode() for i in range(3)}
    assert faults(alike, most=6000) == [] and faults(alike, most=2000) != []
    assert faults({"runs/bench/step.json": noise}, most=2000) == []


def test_git_takes_the_records_and_nothing_else(ignored):
    for preset in ("small", "fair-lr", "small-bf16", "small-engine"):
        cell = f"runs/{preset}/outcome-full-master_dtype=float32-s0"
        assert [n for n in NAMES if ignored(f"{cell}/{n}")] == []
        others = (
            "adapter/x",
            "model/x",
            "stderr.txt",
            "checkpoint/x",
            "lock",
            "launch.lock",
            "failed.json",
            "evals.jsonl",
            "model.bin",
            "tensorboard/x",
        )
        assert [n for n in others if not ignored(f"{cell}/{n}")] == []
    studies = ("baseline/baseline.ipynb", "baseline/samples.jsonl.xz", "baseline/done.json", "rewards/rewards.ipynb")
    assert not any(ignored(f"runs/small/{name}") for name in studies)
    assert [n for n in ("small.json", "law.csv") if ignored(f"runs/published/{n}.xz")] == []
    assert [n for n in ("law.csv", "note.txt", "law/x.json.xz") if not ignored(f"runs/published/{n}")] == []
    assert ignored("runs/tiny/outcome-r1-s0/done.json")
