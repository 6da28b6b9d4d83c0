"""The paper and the poster: Typst sets them from what the notebooks of a built book glued and showed.

The sources, `paper/*.typ`, ask for each value, figure and table by its name. Nothing is computed here, and no number is
typed there.
"""

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib
import typst
from bs4 import BeautifulSoup

from lrd import ROOT

# PDF → its source and the size of its page
PAPERS = {
    "paper.pdf": ("paper.typ", "a4"),
    "paper-letter.pdf": ("paper.typ", "us-letter"),
    "poster.pdf": ("poster.typ", "a0"),
}
# The name of a value or figure; of a table its page, the heading above it, and which of those below that it is.
ASKED = re.compile(r'\b(say|draw|rows)\("([^"]+)"(?:, "([^"]+)"(?:, (\d+))?)?')
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")  # those of the figures; Typst brings its own for text
SVG = "image/svg+xml"


def make(root: Path, built: Path) -> list[Path]:
    """Sets all PDFs of `root`/paper from the book that was built in `built`, and ships them with its pages.

    Raises ValueError where a source asks for what no notebook glued or showed, or where Typst warns.
    """
    below, shipped = built / "paper", built / "html" / "paper"
    shutil.rmtree(below, ignore_errors=True)
    shutil.copytree(root / "paper", below, ignore=shutil.ignore_patterns("*.pdf"))
    shutil.copy(root / "book" / "references.bib", below)
    text = "".join(path.read_text(encoding="utf-8") for path in below.glob("*.typ"))
    record = gather(set(ASKED.findall(text)), built / "jupyter_execute" / "notebooks", below)
    (below / "record.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
    shipped.mkdir(parents=True, exist_ok=True)
    for name, (source, size) in PAPERS.items():
        (shipped / name).write_bytes(typeset(below / source, size))
    return [shipped / name for name in PAPERS]


def gather(asked: set[tuple[str, str, str, str]], notebooks: Path, below: Path) -> dict[str, dict[str, Any]]:
    """What was asked for, as `ASKED` finds it: values as text and tables as rows, by name; figures go to `below`.

    Raises ValueError for a name or a heading that no page has; a table may be missing, as in the book: it has no rows.
    """
    glued: dict[str, Any] = {}
    for path in notebooks.glob("*.glue.json"):
        glued |= {name: output["data"] for name, output in json.loads(path.read_text(encoding="utf-8")).items()}
    record: dict[str, dict[str, Any]] = {"say": {}, "rows": {}}
    for kind, name, heading, nth in sorted(asked):
        if kind == "rows":
            tables, n = shown(notebooks / f"{name}.ipynb", heading), int(nth or 0)
            record[kind][f"{name}, {heading}, {n}"] = tables[n] if n < len(tables) else []
        elif name not in glued:
            raise ValueError(f'paper: a source asks for {kind}("{name}"), which no notebook glues')
        elif kind == "draw":
            # a generic family has no file to be embedded
            image = glued[name][SVG].replace('font-family="sans-serif"', 'font-family="DejaVu Sans"')
            (below / f"{name}.svg").write_text(image, encoding="utf-8")
        else:
            record[kind][name] = ast.literal_eval(glued[name]["text/plain"])
    return record


def shown(path: Path, heading: str) -> list[list[list[str]]]:
    """The tables and lists that an executed notebook shows below a heading, each as rows of cells."""
    tables, above, known = [], "", set()
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^#+ (.*)$", "".join(cell["source"]), flags=re.M)
            known |= set(headings)
            above = headings[-1] if headings else above
        elif above == heading:
            outputs = ("".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"])
            tables += [table for output in outputs for table in tables_of(output)]
    if heading not in known:
        raise ValueError(f'paper: a source asks for rows("{path.stem}", "{heading}"), and there is no such heading')
    return tables


def tables_of(html: str) -> list[list[list[str]]]:
    """Every table and list of a piece of HTML; links to single cells, which lead nowhere in print, are left out."""
    soup = BeautifulSoup(html, "html.parser")
    for links in soup.select(".lrd-seeds"):
        links.decompose()
    for mark in soup.select("br, .lrd-row"):
        mark.insert_before("\n")
    tables = [table.find_all(["tr", "li"]) for table in soup.select("table, ul")]
    return [[[cell.get_text().strip() for cell in row(["th", "td"]) or [row]] for row in rows] for rows in tables]


def typeset(source: Path, size: str) -> bytes:
    """The PDF of a source, with no font but those that come with Typst and with the figures, and no date."""
    options = {"root": source.parent, "font_paths": [FONTS], "ignore_system_fonts": True, "sys_inputs": {"paper": size}}
    pdf, warnings = typst.compile_with_warnings(source, **options)
    if warnings:
        raise ValueError(f"paper: {source.name}: {'; '.join(warning.message for warning in warnings)}")
    return pdf


def main() -> int:
    """Sets them from the built book, and leaves them in `paper/`, too."""
    try:
        made = make(ROOT, ROOT / "_build")
    except (OSError, ValueError, typst.TypstError) as error:
        print(f"{error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"paper: {shutil.copy(path, ROOT / 'paper')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
