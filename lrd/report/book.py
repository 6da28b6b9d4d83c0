"""The book: Jupyter Book over the repository, with a page for every executed cell.

`build` runs Jupyter Book from a clean state. The module is also a small Sphinx extension (see `_config.yml`). It
executes the analysis notebooks side by side, where Sphinx would wait for one after the other, and has `pages` write
those of the executed cells.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import vl_convert
import yaml
from jupyter_client.utils import run_sync
from nbclient import NotebookClient

from lrd import ROOT, results
from lrd.report import pages, paper
from lrd.report.figures.live import VEGALITE
from lrd.runs.kernel import Kernel, sockets

JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"  # of this very environment, wherever its scripts are
ANALYSIS = "notebooks/"  # what lies there is executed, whatever lies below runs/ is shown as it ran
AT_A_TIME = min(4, os.cpu_count() or 1)
RUNTIME = "vega.js"
# A fifth of the site: what only a debugger reads, builds of MathJax beside the one that the pages load, and the words
# of theme and MathJax in languages other than the book's (of the latter's English, `base`, `en` and `nemeth` remain).
UNUSED = ["locales", "mathjax/sre/mathmaps/[!ben]*", "mathjax/sre/mathmaps/n[bn].json"]
UNUSED += ["**/*.map", "mathjax/[!t]*.js", "mathjax/tex-[!c]*.js", "mathjax/tex-chtml-*.js", "mathjax/output/svg*"]
STUDIES = {"rewards": "notebooks/method", "baseline": "notebooks/setup"}  # notebook of a whole preset → page above it


def build(root: Path = ROOT, *, output: Path | None = None) -> int:
    """Builds the book of `root` into `output`/_build/html and returns the exit status; any Sphinx warning is a failure.

    `root` holds `_config.yml`, `book/`, `notebooks/`, `lrd/` (for listings) and `runs/`, whatever there is of them.
    """
    runs, output = root / "runs", output or root
    preset = results.studied(runs)
    html = output / "_build" / "html"
    shutil.rmtree(output / "_build", ignore_errors=True)  # nothing of an earlier build is ever shown again
    frames = html.parent / ".frames"
    frames.mkdir(parents=True)
    toc = html.parent / "_toc.yml"
    toc.write_text(yaml.safe_dump(contents(root, preset, runs), sort_keys=False, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", str(root), "--toc", str(toc), "-W", "--keep-going", "-q"]
    environment = os.environ | {
        "LRD_RUNS": str(runs),
        "LRD_PRESET": preset,  # one answer for all pages, also if a cell finishes meanwhile
        "LRD_CACHE": str(frames),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    status = subprocess.run([*command, "--path-output", str(output)], env=environment, cwd=root).returncode
    print(f"book: {'failed' if status else html / 'index.html'}")
    return status


def contents(root: Path, preset: str, runs: Path) -> dict[str, Any]:
    """The table of contents with the notebooks that are of a whole preset, each below the page that it belongs to."""
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text(encoding="utf-8"))
    chapters = {chapter["file"]: chapter for part in toc["parts"] for chapter in part["chapters"]}
    for name, page in STUDIES.items():
        if (runs / preset / name / "done.json").is_file():
            chapters[page]["sections"] = [{"file": f"runs/{preset}/{name}/{name}"}]
    return toc


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", _read_ahead)
    app.connect("builder-inited", _bundle)
    app.connect("env-before-read-docs", _execute_ahead)
    app.connect("source-read", _take_executed)
    app.connect("html-collect-pages", _empty_page)
    app.connect("build-finished", _write_cells, priority=900)
    app.connect("html-page-context", _without_thebe, priority=900)
    app.connect("html-page-context", _enliven)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read_ahead(app: Any) -> None:
    """Starts to read all runs, once for all kernels: from there on each finds them in `LRD_CACHE`."""
    app.lrd_readers = ProcessPoolExecutor(AT_A_TIME)
    for preset in results.with_runs() if os.environ.get("LRD_CACHE") else ():
        app.lrd_readers.submit(_read, preset)


def _read(preset: str) -> None:
    results.load(preset)


def _execute_ahead(app: Any, env: Any, documents: list[str]) -> None:
    """Starts to execute the analysis notebooks, in the order in which they will be read."""
    app.lrd_readers.shutdown()  # waits
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
                stop(kernel)
                kernel = Kernel(transport="ipc", ip=ip)
        stop(kernel)


def stop(kernel: Kernel) -> None:
    """Ends it, if it runs."""
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


def _bundle(app: Any) -> None:
    """Puts the runtime of live figures, one for all pages, among the static files."""
    bundled = Path(app.doctreedir) / "bundled"
    bundled.mkdir(parents=True, exist_ok=True)
    runtime = vl_convert.javascript_bundle(vl_version=VEGALITE)
    (bundled / RUNTIME).write_text(f"(() => {{{runtime}\n}})();", encoding="utf-8")  # its names are its own
    app.config.html_static_path.append(str(bundled))


def _enliven(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Adds the scripts to the pages that have a live figure, and to no other."""
    if "lrd-live" in context.get("body", ""):
        for script in (RUNTIME, "live.js"):
            app.add_js_file(script, loading_method="defer")


def _empty_page(app: Any) -> list[tuple[str, dict[str, str], str]]:
    """The page that those of executed cells are made from."""
    return [(pages.EMPTY, {"title": pages.TITLE, "body": pages.BODY}, "page.html")]


def _write_cells(app: Any, failure: Exception | None) -> None:
    """Completes the site by the pages of cells and by the paper, and takes out what no page loads."""
    if failure is None:
        pages.write(Path(app.outdir), results.root(), AT_A_TIME)
        paper.make(Path(app.srcdir), Path(app.outdir).parent)
        for pattern in UNUSED:
            for path in Path(app.outdir, "_static").glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _without_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Takes out the scripts of thebe, which Jupyter Book always adds, and twice: an error in every page's console."""
    for files in ("script_files", "css_files"):
        context[files] = [file for file in context.get(files, []) if "thebe" not in f"{file} {vars(file)}".lower()]
