"""The book of half a matrix, built once for all tests that read its pages, and the book of no runs in its place."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import NOTEBOOK, write_run

from lrd import ROOT
from lrd.report import book

BUILD = "import pathlib, sys; from lrd.report import book; sys.exit(book.build(pathlib.Path(sys.argv[1])))"


def with_a_widget(notebook: dict) -> dict:
    """As a notebook is left that some library's progress bar was drawn in: a view and, in the metadata, its state."""
    view, state = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
    data = {view: {"model_id": "a", "version_major": 2, "version_minor": 0}, "text/plain": "100%"}
    output = {"output_type": "display_data", "metadata": {}, "data": data}
    model = {"model_name": "LayoutModel", "model_module": "@jupyter-widgets/base", "state": {}}
    widgets = {state: {"state": {"a": model}, "version_major": 2, "version_minor": 0}}
    text, code = notebook["cells"]
    cells = [text, code | {"outputs": [*code["outputs"], output]}]
    return notebook | {"cells": cells, "metadata": notebook["metadata"] | {"widgets": widgets}}


def half_a_matrix(runs: Path) -> None:
    """Finished cells, failed ones, logs and notebooks that are broken or lack, a strange name for a processor."""
    for seed, right in enumerate((15, 14, 16)):
        write_run(runs, "outcome", 1, seed, {0: 5, 5: 8, 10: right})
    write_run(runs, "process", 4, 1, {0: 5, 5: 12, 10: 9})
    for regime, rank, seed, error in (("process", None, 0, "<loss>"), ("distillation", None, 2, "<b>no</b>")):
        failed = write_run(runs, regime, rank, seed, {0: 5, 10: 1})
        (failed / "done.json").unlink()
        (failed / "failed.json").write_text(json.dumps({"error": f"Diverged: {error}"}))
    (failed / "provenance.json").write_text('{"hardware": {"cpu": "<script>console.error(1)</script>", "cores": 2}}')
    broken = write_run(runs, "distillation", 4, 2, {0: 5, 10: 8})
    metrics = broken / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("\n", "\nnot JSON\n", 1))
    (broken / "cell.ipynb").write_text("{")
    (write_run(runs, "distillation", 16, 1, {0: 5, 10: 8}) / "evals.jsonl").unlink()
    other = shutil.copytree(runs / "tiny/outcome-r1-s0", runs / "paper/outcome-r1-s0")
    (other / "cell.ipynb").write_text(json.dumps(with_a_widget(NOTEBOOK)))


@pytest.fixture(scope="session")
def environment(request) -> dict[str, str] | None:
    """An ISO-8859-1 locale's, where this host can make one: what is right there is right in UTF-8."""
    try:
        return request.getfixturevalue("latin") | {"PYTHONPATH": str(ROOT), "LRD_PRESET": ""}
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="session")
def clone(once, environment) -> Path:
    """A clone as the book sees it, with half a matrix; its site is in `site`."""

    def make(root: Path) -> None:
        for name in ("_config.yml", "book", "notebooks", "paper", "lrd"):
            (root / name).symlink_to(ROOT / name)
        half_a_matrix(root / "runs")
        subprocess.run([sys.executable, "-c", BUILD, root], env=environment, cwd=ROOT, check=True)
        (root / "_build" / "html").rename(root / "site")

    return once("clone", make)


@pytest.fixture(scope="session")
def without_runs(once, clone) -> Path:
    """The site of the same clone, built in the same place once its runs are gone (to `runs-before`)."""

    def make(_: Path) -> None:
        (clone / "runs").rename(clone / "runs-before")
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("LRD_PRESET", raising=False)
            assert book.build(clone) == 0

    once("without-runs", make)
    return clone / "_build" / "html"
