"""The repository's own promises: pins, set-up, and what a clone must not carry.

Each check is a function from text to a list of faults, so that the tests can also show it a faulty text.
"""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from lrd.__main__ import _parser

ROOT = Path(__file__).resolve().parent.parent
MACHINE_PATH = re.compile(
    r"(?:(?<![\w.:/~-])|(?<=file://))(?:/(?:home|Users|root|work|mnt|private)/[\w.-]+|[A-Z]:\\{1,2}Users\\)"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(constraints: str) -> dict[str, Version]:
    """Canonical name → exact version. Anything but `name==version` and comments is an error."""
    lines = [line.strip() for line in constraints.splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for r in requirements:
        assert re.fullmatch(r"==[^*+,]+", str(r.specifier)), f"not one exact public version: {r}"
    names = [canonicalize_name(r.name) for r in requirements]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {n: Version(str(r.specifier)[2:]) for n, r in zip(names, requirements)}


def declared(pyproject: str) -> list[Requirement]:
    """What make installs. The gpu extra is resolved on its host: each vLLM release fixes its own torch."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    return [
        Requirement(line)
        for line in [*project["dependencies"], *extras["book"], *extras["test"], *extras["pretrained"]]
    ]


def faulty_pins(pyproject: str, constraints: str) -> list[str]:
    pinned = pins(constraints)
    return [
        str(r)
        for r in declared(pyproject)
        if (name := canonicalize_name(r.name)) not in pinned or not r.specifier.contains(pinned[name])
    ]


def environment_faults(environment: str, pyproject: str, constraints: str) -> list[str]:
    """Why the conda environment would differ from the `.venv` that make sets up."""
    entries = yaml.safe_load(environment)["dependencies"]
    conda = [e for e in entries if isinstance(e, str)]
    pip = next((e["pip"] for e in entries if isinstance(e, dict)), [])
    faults = [] if pip[:1] == ["-c constraints.txt"] else ["pip does not start from constraints.txt"]
    if "-e .[book,test,pretrained]" not in pip:
        faults.append("pip does not install -e .[book,test,pretrained]")
    pinned = pins(constraints)
    for r in (Requirement(line) for line in pip if not line.startswith("-")):
        if str(r.specifier) != f"=={pinned.get(canonicalize_name(r.name))}":
            faults.append(f"{r} is not the pin of constraints.txt")
    supported = SpecifierSet(tomllib.loads(pyproject)["project"]["requires-python"])
    for e in conda:
        name, _, version = e.partition("=")
        if name not in ("python", "pip"):
            faults.append(f"{e} comes from conda, not from the pins")
        elif name == "python" and not supported.contains(f"{version}.99"):
            faults.append(f"{e} is outside requires-python")
    return faults


def carries_outputs(notebook: str) -> bool:
    cells = json.loads(notebook)["cells"]
    return any(c.get("outputs") or c.get("execution_count") for c in cells)


@pytest.fixture(scope="module")
def kept_files() -> list[Path]:
    """Every file that is in git or would be added."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_every_dependency_is_pinned_within_its_bounds():
    assert faulty_pins(read("pyproject.toml"), read("constraints.txt")) == []


def test_environment_installs_the_same_pins():
    faults = environment_faults(read("environment.yml"), read("pyproject.toml"), read("constraints.txt"))
    assert faults == []


def test_a_missing_or_wrong_pin_is_noticed():
    pyproject, constraints = read("pyproject.toml"), read("constraints.txt")
    without = re.sub(r"(?m)^peft==.*\n", "", constraints)
    assert [r.split(">")[0] for r in faulty_pins(pyproject, without)] == ["peft"]
    older = re.sub(r"(?m)^peft==.*", "peft==0.1.0", constraints)
    assert [r.split(">")[0] for r in faulty_pins(pyproject, older)] == ["peft"]
    for loose in ("peft>=0.21", "torch==2.13.0+cpu", "torch==2.*"):
        with pytest.raises(AssertionError):
            pins(loose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-c constraints.txt", "-c other.txt"),
        ("-e .[book,test,pretrained]", "-e ."),
        (r"torch==\S+", "torch==2.0.0"),
        (r"torch==\S+", "numpy"),
        (r"python=3\.\d+", "python=3.10"),
        (r"- pip$", "- pandas"),
    ],
)
def test_a_differing_environment_is_noticed(old, new):
    pattern = old if "\\" in old or old.endswith("$") else re.escape(old)
    changed, count = re.subn(pattern, new, read("environment.yml"), count=1, flags=re.MULTILINE)
    assert count == 1
    assert len(environment_faults(changed, read("pyproject.toml"), read("constraints.txt"))) == 1


def test_continuous_integration_runs_what_the_readme_names():
    targets = set(re.findall(r"(?m)^([a-z]+):", read("Makefile")))
    assert targets >= {"reproduce", "test", "lint", "book", "clean", "help"}
    assert "make test" in read("README.md") and "make reproduce" in read("README.md")
    script = [line for line in read(".ci/run").splitlines() if not line.startswith("#")]
    assert "make test" in script and "set -euo pipefail" in script
    assert (ROOT / ".ci/run").stat().st_mode & 0o111, ".ci/run is not executable"
    assert set(re.findall(r"`make ([a-z]+)", read("CONTRIBUTING.md"))) <= targets


def test_workflow_covers_the_supported_pythons():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    supported = SpecifierSet(tomllib.loads(read("pyproject.toml"))["project"]["requires-python"])
    expected = [f"3.{minor}" for minor in range(9, 20) if supported.contains(f"3.{minor}.99")]
    assert jobs["test"]["strategy"]["matrix"]["python"] == expected
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("make test" in c for c in commands) and any("make reproduce" in c for c in commands)


def test_source_notebooks_carry_no_outputs():
    notebooks = sorted((ROOT / "notebooks").glob("**/*.ipynb"))
    assert ROOT / "notebooks" / "cell.ipynb" in notebooks
    assert [p.name for p in notebooks if carries_outputs(p.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("left", [{"outputs": [{}], "execution_count": None}, {"outputs": [], "execution_count": 3}])
def test_an_executed_notebook_is_noticed(left):
    assert carries_outputs(json.dumps({"cells": [{"cell_type": "code", "source": "1", **left}]}))


def test_no_machine_path_is_kept(kept_files):
    found = {}
    for path in kept_files:
        if hit := MACHINE_PATH.search(path.read_bytes().decode("utf-8", errors="ignore")):
            found[str(path.relative_to(ROOT))] = hit.group()
    assert found == {}


def test_a_machine_path_is_noticed():
    for text in (
        "file:///roo" + "t/x",
        '"/home' + '/me/lrd"',
        "in /root" + "/x",
        "(/Users" + "/me/x)",
        "C:" + "\\\\Users\\\\me",
    ):
        assert MACHINE_PATH.search(text), text
    for text in ("https://example.org/home/page", "runs/work/x", "docs/home/x.md", "/path/to/python3.11", "and/or"):
        assert not MACHINE_PATH.search(text), text


def test_what_a_user_computes_stays_out_of_git(ignored):
    """runs/tiny, models and adapters are ignored; the results of runs/small and runs/bench are not."""
    cell = "outcome-r1-s0"
    assert all(map(ignored, [".venv/x", "models/tiny/x", f"runs/tiny/{cell}/done.json", "_build/html/index.html"]))
    assert all(map(ignored, [f"runs/small/{cell}/adapter/x", f"runs/small/{cell}/checkpoint/x"]))
    assert not any(map(ignored, [f"runs/small/{cell}/{n}" for n in ("cell.ipynb", "metrics.jsonl.xz", "done.json")]))
    assert not any(map(ignored, ["runs/bench/step.json", "lrd/presets/tiny.toml", "notebooks/cell.ipynb"]))


def test_the_commands_of_the_runbook_are_commands_and_its_manifest_is_of_the_pinned_ray():
    pages = "".join((ROOT / "book" / name).read_text() for name in ("run.md", "study.md"))
    blocks = re.findall(r"```(bash|yaml)\n(.*?)```", pages, re.DOTALL)
    found = [shlex.split(line, comments=True) for kind, text in blocks for line in _joined(text) if "lrd " in line]
    words = [line[line.index("lrd") + 1 :] for line in found if "lrd" in line]
    names = {_parser().parse_args(line).run.__name__ for line in words}
    assert {"_testbed", "_cell", "_matrix", "_status", "_sync", "_doctor", "_book"} <= names
    manifest = yaml.safe_load(next(text for kind, text in blocks if kind == "yaml"))
    spec = manifest["spec"]["rayClusterSpec"]
    assert f"ray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    script = next(text for _, text in blocks if text.startswith("#!/bin/bash"))
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def test_the_names_that_others_rely_on():
    """Each may move, and is then still found here."""
    from lrd import cell, grpo, matrix, results, rewards, verifier

    assert matrix.cells("tiny") == cell.grid("tiny") and cell.Cell.load("tiny", regime="outcome", rank=1, seed=0).name
    assert all(map(callable, (rewards.Deposits, grpo.advantages, grpo.loss, verifier.is_correct, results.load)))
