"""The book, built with every warning an error: from half a matrix, and then, in its place, from nothing."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from fakes import NOTEBOOK

from lrd import ROOT
from lrd.cell import Cell
from lrd.report import book

LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|@import\s+["']?(?:url\()?["']?(?:https?:)?//"""
)
STYLES = re.compile(
    r"""<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|icon|preconnect|dns-prefetch))[^>]*\bhref=["']?(?:https?:)?//"""
)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A clone as the book sees it, without runs."""
    monkeypatch.delenv("LRD_PRESET", raising=False)
    for name in ("_config.yml", "book", "notebooks", "paper", "lrd"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.read_text())).replace("\N{NO-BREAK SPACE}", " ")


def requests_of(html: Path) -> list[str]:
    """What a page would load from elsewhere."""
    found = []
    for path in html.rglob("*.html"):
        text = path.read_text(errors="replace")
        found += [f"{path.name}: {hit}" for pattern in (LOADED, STYLES) for hit in pattern.findall(text)]
    for path in html.rglob("*.css"):
        found += [
            f"{path.name}: {hit}"
            for hit in re.findall(r"url\([\"']?(?:https?:)?//[^)]*", path.read_text(errors="replace"))
        ]
    return found


def broken_links_of(page: Path) -> list[str]:
    targets = re.findall(r"""(?:href|src)=["']([^"'#?]+)""", page.read_text())
    inside = [t for t in targets if not re.match(r"[a-z]+:|//", t)]
    return [t for t in inside if not (page.parent / t).exists()]


@pytest.mark.slow
def test_no_name_of_a_file_is_taken_for_a_host(clone):
    """A `problems.py` in the text is no link to a host of Paraguay."""
    pages = [*(clone / "site").rglob("*.html")]
    assert pages and [page for page in pages if re.search(r'href="http://[\w.-]+\.(py|md|sh)"', page.read_text())] == []


@pytest.mark.slow
def test_half_a_matrix(clone):
    half = clone / "site"
    answer, results = half / "notebooks" / "answer.html", half / "notebooks" / "results.html"
    assert (half / "index.html").is_file()
    assert requests_of(half) == []
    for page in set(half.rglob("*.html")) - set((half / "_static").rglob("*.html")):
        assert broken_links_of(page) == [], page
    cells = sorted(path.parent.name for path in (half / "runs" / "tiny").glob("*/cell.html"))
    assert cells == [
        "distillation-full-s2",
        "distillation-r16-s1",
        "outcome-r1-s0",
        "outcome-r1-s1",
        "outcome-r1-s2",
        "process-full-s0",
        "process-r4-s1",
    ]
    for cell in cells:
        assert f"../runs/tiny/{cell}/cell.html" in results.read_text()
    cell_page = half / "runs" / "tiny" / "outcome-r1-s0" / "cell.html"
    assert "<title>outcome, rank 1, seed 0" in cell_page.read_text()
    assert "One cell of the matrix" not in cell_page.read_text()
    paper = half / "runs" / "paper" / "outcome-r1-s0" / "cell.html"
    assert paper.is_file() and "html-manager" not in paper.read_text()
    gallery = (half / "notebooks" / "gallery.html").read_text()
    assert "../runs/paper/outcome-r1-s0/cell.html" in gallery and "../runs/tiny/outcome-r1-s0/cell.html" in gallery
    (kept,) = clone.glob("runs*/tiny/outcome-r1-s0/cell.ipynb")
    assert json.loads(kept.read_text()) == NOTEBOOK  # only shown, never run
    for page in (answer, results):
        assert "process-full-s0: failed: Diverged: &lt;loss&gt;" in text_of(page)
        assert "distillation-r4-s2: metrics.jsonl: line 2 cannot be read" in text_of(page)
        assert "cell.ipynb is unreadable" in text_of(page)
        assert "distillation-r16-s1: evals.jsonl is missing or empty" in text_of(page)
        assert "outcome-full-s0: absent" in text_of(page)
    assert "0.750 to 0.750" in text_of(answer) and "0.250" in text_of(answer)
    equivalence, stability = (text_of(half / "notebooks" / f"{name}.html") for name in ("equivalence", "stability"))
    for text in (equivalence, stability):
        assert "process-full-s0: failed: Diverged: &lt;loss&gt;" in text
    assert "under process no rank has two finished seeds in common" in equivalence
    assert "No finished cell collapses" in stability and "outcome-r1-s0" in stability


@pytest.mark.slow
def test_the_locale_of_the_host_does_not_matter(latin, clone):
    """The book of half a matrix was built in that one."""
    assert "→" in "".join(page.read_text(encoding="utf-8") for page in (clone / "site").rglob("*.html"))


@pytest.mark.slow
def test_no_runs_at_all_though_there_were_some(without_runs):
    """Built in the place of half a matrix: nothing of an earlier build is ever shown again."""
    html = without_runs
    answer = text_of(html / "notebooks" / "answer.html")
    assert "54 absent" in answer and "not measured" in answer and "0.750" not in answer
    for page in ("equivalence", "stability", "explore", "gallery", "budget", "method", "yours"):
        assert "Reported here: preset tiny. Of 54 cells: 54 absent." in text_of(html / "notebooks" / f"{page}.html")
    method = text_of(html / "notebooks" / "method.html")
    assert "no rank has two finished seeds in common" in method and "108 of 500" in method  # the record needs no runs
    pages = {n: text_of(html / "notebooks" / f"{n}.html") for n in ("yours", "variants", "rates")}
    assert "No cell of tiny has finished here" in pages["yours"] and "first: absent, again: absent" in pages["yours"]
    assert pages["variants"].count("Not run: no seed of preset small-") == 2
    assert "none has been chosen" in pages["rates"] and "are a guess until then" in pages["rates"]
    assert not (html / "runs").exists()


def test_contents_hang_the_notebooks_of_a_whole_preset_below_their_pages(root):
    for name in ("baseline", "rewards"):
        (root / "runs" / "tiny" / name).mkdir(parents=True)
    (root / "runs/tiny/baseline/done.json").write_text("{}")
    toc = book.contents(root, "tiny", root / "runs")
    below = {c["file"]: c["sections"] for part in toc["parts"] for c in part["chapters"] if "runs" in str(c)}
    assert below == {"notebooks/setup": [{"file": "runs/tiny/baseline/baseline"}]}


def _executed(app, env, name):
    source = [Path(env.doc2path(name)).read_text()]
    book._take_executed(app, name, source)
    return json.loads(source[0])


@pytest.mark.parametrize("how", ["1 / 0", "import os; os._exit(1)"])
def test_a_kernel_serves_many_notebooks_and_carries_no_name_over(tmp_path, how):
    """It keeps what is imported; one that fails, or dies, costs the next no more than a start."""
    ours, new = "print(json.marked == os.getpid())", "print(hasattr(json, 'marked'))"
    codes = ["x = json.marked = os.getpid()", ours, "x", new, how, "print('goes on')"]
    names = [f"notebooks/{i}" for i in range(len(codes))]
    (tmp_path / "notebooks").mkdir()
    for name, code in zip(names, codes):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"import json, os\n{code}")]),
            tmp_path / f"{name}.ipynb",
        )
    app = SimpleNamespace(lrd_readers=ThreadPoolExecutor())
    env = SimpleNamespace(doc2path=lambda name: str(tmp_path / f"{name}.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "AT_A_TIME", 1)
        book._execute_ahead(app, env, names)
    done = [_executed(app, env, name) for name in names]
    said = ["".join(o["text"][0] for o in notebook["cells"][0]["outputs"]) for notebook in done]
    assert said == ["", "True\n", "", "False\n", "", "goes on\n"]
    assert all(len(notebook["cells"]) == 1 for notebook in done)
    assert ["mystnb" in notebook["metadata"] for notebook in done] == [True, True, False, True, False, True]


def test_analysis_notebooks_are_executed_ahead_and_side_by_side(tmp_path):
    """Each of two waits until the other has begun; a third one fails and is left as it was."""
    meet = "import pathlib, time\npathlib.Path('{0}').touch()\nwhile not pathlib.Path('{1}').exists(): time.sleep(0.01)"
    sources = {"notebooks/a": meet.format("a", "b"), "notebooks/b": meet.format("b", "a"), "notebooks/c": "1 / 0"}
    for name, code in sources.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{code}\nprint('ran')")])
        (tmp_path / f"{name}.ipynb").parent.mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    app = SimpleNamespace(lrd_readers=ThreadPoolExecutor())
    env = SimpleNamespace(doc2path=lambda name: str(tmp_path / f"{name}.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "AT_A_TIME", 2)
        book._execute_ahead(app, env, ["book/theory", *sources, "runs/tiny/outcome-r1-s0/cell"])
    assert sorted(app.lrd_executed) == sorted(sources)
    for name in sources:
        source = [before := Path(env.doc2path(name)).read_text()]
        book._take_executed(app, name, source)
        after = json.loads(source[0])
        if name == "notebooks/c":
            assert source == [before]  # myst-nb executes it once more and warns
        else:
            assert after["cells"][0]["outputs"][0]["text"] == ["ran\n"]
            assert after["metadata"]["mystnb"] == {"execution_mode": "off"}
    other = ["prose"]
    book._take_executed(app, "book/theory", other)
    assert other == ["prose"]


def test_runs_are_never_executed_and_analysis_always():
    execute = yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]
    assert execute["execute_notebooks"] == "force"
    assert execute["exclude_patterns"] == ["runs/*/*/*.ipynb"]
    assert Path("runs/tiny", Cell.load("tiny", regime="outcome", rank=1, seed=0).name, "cell.ipynb").match(
        execute["exclude_patterns"][0]
    )
