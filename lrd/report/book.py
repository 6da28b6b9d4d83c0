"""The book: Jupyter Book over the repository, with a page for every executed cell.

`build` adds the executed cells to `book/_toc.yml` and runs Jupyter Book from a clean state. The module is
also a small Sphinx extension (see `_config.yml`). It executes the analysis notebooks side by side, where Sphinx would
wait for one after the other; and executed cells, stored as they ran and under one title, get a name each as pages.
"""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_client.utils import run_sync
from nbclient import NotebookClient

from lrd import ROOT, results
from lrd.cell import Cell, grid
from lrd.presets import read_preset
from lrd.report.text import arm_name
from lrd.runs.kernel import Kernel, sockets

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # of this very environment, wherever its scripts are
CELLS = "book/cells"  # the page under which all cells hang
ANALYSIS = "notebooks/"  # what lies there is executed, whatever lies below runs/ is shown as it ran
AT_A_TIME = min(4, os.cpu_count() or 1)
STUDIES = {"rewards": "notebooks/method", "baseline": "notebooks/setup"}  # notebook of a whole preset → page above it


def build(root: Path = ROOT, *, output: Path | None = None) -> int:
    """Builds the book of `root` into `output`/_build/html and returns the exit status; any Sphinx warning is a failure.

    `root` holds `_config.yml`, `book/`, `notebooks/`, `lrd/` (for listings) and `runs/`, whatever there is of them.
    """
    runs, output = root / "runs", output or root
    preset = results.studied(runs)
    html = output / "_build" / "html"
    shutil.rmtree(output / "_build", ignore_errors=True)  # nothing of an earlier build is ever shown again
    html.parent.mkdir(parents=True)
    toc = html.parent / "_toc.yml"
    toc.write_text(yaml.safe_dump(contents(root, preset, runs), sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "--toc", str(toc), "-W", "--keep-going", "-q"]
    environment = os.environ | {
        "LRD_RUNS": str(runs),
        "LRD_PRESET": preset,  # one answer for all pages, also if a cell finishes meanwhile
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    status = subprocess.run([*command, "--path-output", str(output)], env=environment, cwd=root).returncode
    print(f"book: {'failed' if status else html / 'index.html'}")
    return status


def contents(root: Path, preset: str, runs: Path) -> dict[str, Any]:
    """The table of contents with all cells in it: the preset's under their regime's page, others' under theirs.

    Others name their `page` themselves. What has no page of its own has its cells with the cells' own page.
    """
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    chapters = {chapter["file"]: chapter for part in toc["parts"] for chapter in part["chapters"]}
    for name, page in STUDIES.items():
        if (runs / preset / name / "done.json").is_file():
            chapters[page]["sections"] = [{"file": f"runs/{preset}/{name}/{name}"}]
    hung = {CELLS: _by_regime(root, preset, runs)}
    for other in results.with_runs(runs):
        page = f"notebooks/{read_preset(other).get('page')}"
        sections = hung.setdefault(page if page in chapters else CELLS, [])
        if other != preset:
            cells = [cell.name for cell in grid(other) if results.has_page(runs / other / cell.name)]
            sections += [{"file": f"runs/{other}/{name}/cell", "title": f"{other}: {name}"} for name in cells]
    for page, sections in hung.items():
        if sections:
            chapters[page].setdefault("sections", []).extend(sections)
    return toc


def _by_regime(root: Path, preset: str, runs: Path) -> list[dict[str, Any]]:
    """The pages of the preset's regimes, each over its cells; a cell whose regime has no page stands by itself."""
    sections: dict[str, dict[str, Any]] = {}
    for cell in sorted(grid(preset), key=_place):
        if not results.has_page(runs / preset / cell.name):
            continue
        entry, regime = {"file": f"runs/{preset}/{cell.name}/cell"}, f"{CELLS}-{cell.regime}"
        if (root / f"{regime}.md").is_file():
            above, place = sections.setdefault(regime, {"file": regime, "sections": []}), place_of(cell)
            above["sections"].append(entry | {"title": place[0].upper() + place[1:]})
        else:
            sections[cell.name] = entry | {"title": cell.name}
    return list(sections.values())


def _place(cell: Cell) -> tuple[Any, ...]:
    """Sorts by arm, then by further axes, then by seed."""
    return cell.rank is None, cell.rank or 0, *map(str, cell.point.values()), cell.seed


def place_of(cell: Cell) -> str:
    """Its place within the regime: `rank 4, training 2, seed 1`, and `repair=cap` of an axis that is no count."""
    axes = (f"{axis} {value}" if str(value).isdigit() else f"{axis}={value}" for axis, value in cell.point.items())
    return ", ".join([arm_name(cell.arm), *axes, f"seed {cell.seed}"])


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("env-before-read-docs", _execute_ahead)
    app.connect("source-read", _take_executed)
    app.connect("source-read", _name_cell)
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("html-page-context", _count_seeds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _execute_ahead(app: Any, env: Any, documents: list[str]) -> None:
    """Starts to execute the analysis notebooks, in the order in which they will be read."""
    app.lrd_executed = {name: Future() for name in documents if name.startswith(ANALYSIS)}
    todo = iter([(Path(env.doc2path(name)), future) for name, future in app.lrd_executed.items()])
    for _ in range(AT_A_TIME):
        threading.Thread(target=_work, args=[todo], daemon=True).start()


def _work(todo: Iterator[tuple[Path, Future[str]]]) -> None:
    """Executes notebooks one after the other in one kernel: the next need not import and read what the last one has.

    One that fails takes the kernel with it, and the next starts another.
    """
    with sockets() as ip:
        kernel = Kernel(transport="ipc", ip=ip)
        for path, future in todo:
            try:
                future.set_result(execute(path, kernel))
            except Exception as error:
                future.set_exception(error)
                _stop(kernel)
                kernel = Kernel(transport="ipc", ip=ip)
        _stop(kernel)


def _stop(kernel: Kernel) -> None:
    if kernel.has_kernel:
        run_sync(kernel.shutdown_kernel)(now=True)


def execute(path: Path, kernel: Kernel) -> str:
    """The notebook with its outputs, as JSON, marked as one that need not be executed again.

    It finds no name of the notebook before it in the same kernel.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    folder = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, km=kernel, timeout=180, resources=folder)
    try:
        client.execute()
    finally:
        if client.kc is not None:  # the client of a kernel that goes on leaves its sockets open
            client.kc.stop_channels()
    del notebook.cells[0]
    notebook.metadata["mystnb"] = {"execution_mode": "off"}
    return nbformat.writes(notebook)


def _take_executed(app: Any, document: str, source: list[str]) -> None:
    """Puts the executed notebook in place of its source; one that failed is left to myst-nb, which says how."""
    ahead: Future[str] | None = app.lrd_executed.pop(document, None)
    if ahead:
        with contextlib.suppress(Exception):
            source[0] = ahead.result()


@functools.cache  # each of a preset's hundreds of pages asks
def _cells(preset: str) -> dict[str, Cell]:
    return {cell.name: cell for cell in grid(preset)}


def _name_cell(app: Any, document: str, source: list[str]) -> None:
    """Puts the cell's own name over its page, and the way back beneath; the file stays as it is."""
    if not (document.startswith("runs/") and document.endswith("/cell")):
        return
    notebook = json.loads(source[0])
    _, preset, name, _ = document.split("/")
    cell = _cells(preset)[name]
    for each in notebook["cells"]:
        heading, _, rest = "".join(each["source"]).partition("\n")
        if each["cell_type"] == "markdown" and heading.startswith("# "):
            each["source"] = rest
            break  # the title that all cells share; papermill puts the notice of a failure before it
    rank = "full" if cell.rank is None else cell.rank
    command = f"lrd cell {preset} --regime {cell.regime} --rank {rank} --seed {cell.seed}"
    command += "".join(f" --set {axis}={value}" for axis, value in cell.point.items())
    links = [
        "[the gallery that it is part of](/notebooks/gallery.ipynb)",
        f"`{command} --runs elsewhere` runs it again",
    ]
    if student := results.models_of(results.root() / preset / name).get("student"):
        links.append(f"began from student `{student}`")
    title = f"# {cell.regime}, {place_of(cell)}\n\n{' · '.join(links)}"
    notebook["cells"].insert(0, {"cell_type": "markdown", "id": "title", "metadata": {}, "source": title})
    source[0] = json.dumps(notebook)


def _without_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Takes out the scripts of thebe, which Jupyter Book always adds, and twice: an error in every page's console."""
    for files in ("script_files", "css_files"):
        context[files] = [file for file in context.get(files, []) if "thebe" not in f"{file} {vars(file)}".lower()]


def _count_seeds(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Tells the style sheet how many seeds an arm has, of each training: the cells' page gives each a column."""
    if page.startswith(CELLS):
        seeds = len({cell.seed for cell in grid(results.studied())})
        context["metatags"] = f"{context.get('metatags', '')}<style>:root {{--lrd-seeds: {seeds}}}</style>"
