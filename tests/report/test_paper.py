"""The paper and the poster: no number typed, every number of the record printed, fonts embedded, and its length."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
from pypdf import PdfReader

from lrd import ROOT, results
from lrd.report import book, paper

SOURCES = "".join(path.read_text("utf-8") for path in sorted((ROOT / "paper").glob("*.typ")))
NUMBER = re.compile(r"\d[\d.,]*(?:e-?\d+)?")
TEXT = "<text y='20' font-family=\"sans-serif\">F</text>"
FIGURE = f"<svg xmlns='http://www.w3.org/2000/svg' width='60' height='40'>{TEXT}</svg>"
# What has a digit and is no result: names, numbers of pages, headings, figures, tables, equations and references, and
# what stands in formulas.
NAMES = ["Qwen3-1.7B", "SmolLM2-135M", "MATH-500", "pass@1", "Pass@1", "bf16", "CS224R"]
COUNTED = [r"(?:Figure|Table|Section)\s+\d+", r"\[\d+\]", r"\(\d\)", r"^\d{1,2}$", r"^\d{1,2} (?=[A-Z])"]
COUNTED += [r"report, \d{4}"]  # a year of a reference
FORMULAS = [r"𝑅1", r"log2", r"𝑘=1", r"𝟏", r"1[−+]𝜀", r"− ?1 ?∑", r"max\(.*?0\)"]


def built(folder: Path, digits: bool) -> Path:
    """A book with all that the sources ask for, each number another one, or words alone."""
    notebooks = folder / "jupyter_execute" / "notebooks"
    notebooks.mkdir(parents=True)
    count = iter(range(4001, 10**6))

    def value() -> str:
        n = next(count)
        return f"{n}.25" if digits else "many"

    glued, tables = {}, {}
    for kind, name, heading, nth in sorted(set(paper.ASKED.findall(SOURCES))):
        if kind == "rows":
            wanted = tables.setdefault(name, {})
            wanted[heading] = max(wanted.get(heading, 0), int(nth or 0))
        else:
            data = {paper.SVG: FIGURE} if kind == "draw" else {"text/plain": repr(f"value {value()}.")}
            glued[name] = {"data": data}
    (notebooks / "all.glue.json").write_text(json.dumps(glued))
    claims = re.findall(r'\b(?:claim|evidence)\("([^"]+)"\)', SOURCES)
    for name, wanted in tables.items():
        cells = []
        for heading, last in wanted.items():
            cells.append(nbformat.v4.new_markdown_cell(f"## {heading}\n\nText."))
            first = claims if heading == "What is claimed" else ["cost", "row"]
            if heading == "Regime by regime":  # a list, and below it the table
                output = nbformat.v4.new_output("display_data", {"text/html": f"<ul><li>{value()}</li></ul>"})
                cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
            for _ in range(last + 1):
                rows = "".join(f"<tr><th>{row}</th><td>{value()}<br>{value()}</td></tr>" for row in first)
                html = f"<table><thead><tr><th>head</th><th>value</th></tr></thead><tbody>{rows}</tbody></table>"
                output = nbformat.v4.new_output("display_data", {"text/html": html})
                cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
        nbformat.write(nbformat.v4.new_notebook(cells=cells), notebooks / f"{name}.ipynb")
    return folder


def pages(path: Path) -> list[str]:
    return [page.extract_text() for page in PdfReader(BytesIO(path.read_bytes())).pages]


def record(built: Path) -> dict[str, dict[str, Any]]:
    """What the sources were given."""
    return json.loads((built / "paper" / "record.json").read_text("utf-8"))


def passed(built: Path) -> set[str]:
    """Every number of it."""
    values = json.dumps([list(values.values()) for values in record(built).values()], ensure_ascii=False)
    return {number.rstrip(".,") for number in NUMBER.findall(values)}


def unprinted(built: Path) -> set[str]:
    """Those of them that no PDF has; a line may break within a number."""
    shown = "".join(text for path in (built / "html" / "paper").glob("*.pdf") for text in pages(path))
    shown = re.sub(r"\s", "", shown)
    return {number for number in passed(built) if number not in shown}


def unembedded(path: Path) -> list[str]:
    """Fonts of a PDF whose file it does not carry."""
    fonts = {}
    for page in PdfReader(path).pages:
        fonts |= page["/Resources"].get("/Font", {})
    found = []
    for font in (font.get_object() for font in fonts.values()):
        (inner,) = font.get("/DescendantFonts", [font])
        described = inner.get_object()["/FontDescriptor"].get_object()
        if not {"/FontFile", "/FontFile2", "/FontFile3"} & set(described):
            found.append(font["/BaseFont"])
    assert fonts
    return found


def test_no_number_is_typed(tmp_path):
    for path in paper.make(ROOT, built(tmp_path, digits=False)):
        text = "\n".join(pages(path)).partition("\nReferences\n")
        text = text[0] + text[2].partition("Settings of the comparison")[2]  # without the references' years and pages
        for name in NAMES:
            text = text.replace(name, "")
        for pattern in [*COUNTED, *FORMULAS]:
            text = re.sub(pattern, "", text, flags=re.M)
        assert [line for line in text.splitlines() if re.search(r"\d", line)] == [], path


def test_every_number_of_the_record_is_printed_and_every_font_embedded(tmp_path):
    made = paper.make(ROOT, built(tmp_path, digits=True))
    assert [path.name for path in made] == ["paper.pdf", "paper-letter.pdf", "poster.pdf"]
    assert len(passed(tmp_path)) > 200
    assert unprinted(tmp_path) == set()
    assert {path.name: unembedded(path) for path in made} == {path.name: [] for path in made}
    sizes = {path.name: [round(float(x) / 72 * 25.4) for x in PdfReader(path).pages[0].mediabox[2:]] for path in made}
    assert sizes == {"paper.pdf": [210, 297], "paper-letter.pdf": [216, 279], "poster.pdf": [841, 1189]}


@pytest.mark.parametrize(
    "asked, said",
    [('#say("nothing")', 'say("nothing")'), ('#rows("setup", "Nowhere")', 'rows("setup", "Nowhere")')],
)
def test_what_no_page_has_is_named(tmp_path, asked, said):
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    shutil.copytree(ROOT / "paper", tmp_path / "paper")
    with (tmp_path / "paper" / "poster.typ").open("a") as source:
        source.write(asked)
    with pytest.raises(ValueError, match=re.escape(said)):
        paper.make(tmp_path, built(tmp_path / "_build", digits=True))


def test_tables_are_read_without_links_to_cells():
    html = (
        "<table><tr><th>rank 1<br><small>8 bits</small></th><td><span>0.5</span><span class='lrd-row'>0.6</span>"
        "<span class='lrd-row lrd-seeds'><a href='x'>0</a></span></td></tr></table><ul><li>a &lt; b</li></ul>"
    )
    assert paper.tables_of(html) == [[["rank 1\n8 bits", "0.5\n0.6"]], [["a < b"]]]


def test_a_warning_of_typst_is_an_error(tmp_path):
    (tmp_path / "a.typ").write_text('#text(font: "No Such Font")[a]')
    with pytest.raises(ValueError, match=r"a\.typ: unknown font family"):
        paper.typeset(tmp_path / "a.typ", "a4")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_paper_of_the_published_runs(tmp_path, monkeypatch):
    if len(results.load("fair").finished) < len(results.load("fair").cells):
        pytest.skip("preset fair has not run here")
    monkeypatch.delenv("LRD_PRESET", raising=False)
    for name in ("_config.yml", "book", "notebooks", "paper", "lrd"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    for runs in (ROOT / "runs").iterdir():
        if runs.name != "tiny":  # this host's own
            (tmp_path / "runs" / runs.name).symlink_to(runs)
    assert book.build(tmp_path) == 0
    below = tmp_path / "_build"
    assert sum(path.stat().st_size for path in (below / "html").rglob("*") if path.is_file()) <= 90e6
    assert unprinted(below) == set()
    assert [name for name, rows in record(below)["rows"].items() if not rows] == []
    for name in ("paper.pdf", "paper-letter.pdf"):
        texts = pages(below / "html" / "paper" / name)
        before = next(i for i, text in enumerate(texts) if "Settings of the comparison" in text.splitlines()[0])
        assert 8 <= before <= 10 and len(texts) > before + 4
    assert len(pages(below / "html" / "paper" / "poster.pdf")) == 1
