"""The pages of executed cells: each is its notebook as HTML within an empty page of the book.

Through Sphinx hundreds of notebooks take minutes, and the book keeps each three times. Here a page begins with what the
cell came to and its curves, and the notebook itself lies beside it as it ran, zipped.
"""

import functools
import html
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from IPython.lib.lexers import IPython3Lexer
from markdown_it import MarkdownIt
from nbconvert.filters import ansi2html
from pygments import highlight
from pygments.formatters import HtmlFormatter

from lrd import results
from lrd.cell import Cell, grid
from lrd.report.text import arm_name

EMPTY = "runs/of/one/cell"  # a page as deep as a cell's, which gives its head, sidebar and foot to all
# A line of text as Matplotlib writes it: what it says as a comment, then a group of glyphs.
GLYPHS = r'<!-- ([^>]*?) -->\s*<g style="([^"]*)" transform="([^"]*?)scale\(([\d.]+) -[\d.]+\)">.*?</g>'
TITLE, BODY = "lrd-title-of-a-cell", "<p>lrd-body-of-a-cell</p>"
KEPT = ("cell.ipynb", "config.json", "provenance.json")  # of a run, in the file to be downloaded
DRAWN = "What this cell of the notebook drew"
COLOURS = {"0,114,178": "lrd-g", "213,94,0": "lrd-b"}  # of a token: a class is shorter than its style


def write(site: Path, runs: Path, workers: int) -> None:
    """Writes a page for every cell that can have one into the site, in the place of the empty page."""
    empty = site / f"{EMPTY}.html"
    page = empty.read_text(encoding="utf-8")
    empty.unlink()
    for folder in list(empty.parents)[:3]:
        if not any(folder.iterdir()):
            folder.rmdir()
    todo = list(with_pages(runs))
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(functools.partial(_write, site, runs, page), todo, chunksize=8):
            pass


def with_pages(runs: Path) -> Iterator[Cell]:
    """The cells of all matrices that were begun, as far as their notebooks can be shown."""
    for preset in results.with_runs(runs):
        yield from (cell for cell in grid(preset) if results.has_page(runs / preset / cell.name))


def _write(site: Path, runs: Path, page: str, cell: Cell) -> None:
    run, below = runs / cell.preset / cell.name, site / "runs" / cell.preset / cell.name
    below.mkdir(parents=True)
    body, images = render(cell, json.loads((run / "cell.ipynb").read_text(encoding="utf-8")), run)
    for name, image in images.items():
        (below / name).write_text(image, encoding="utf-8")
    with zipfile.ZipFile(below / "cell.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name in filter(lambda name: (run / name).is_file(), KEPT):
            packed.write(run / name, f"{cell.name}/{name}")
    text = (
        page.replace(BODY, body)
        .replace(TITLE, html.escape(title(cell)))
        .replace(EMPTY, f"runs/{cell.preset}/{cell.name}/cell")
    )
    (below / "cell.html").write_text(text, encoding="utf-8")


def title(cell: Cell) -> str:
    """Its place in the matrix: `outcome, rank 4, training 2, seed 1`, and `repair=cap` of an axis that is no count."""
    axes = (f"{axis} {value}" if str(value).isdigit() else f"{axis}={value}" for axis, value in cell.point.items())
    return ", ".join([cell.regime, arm_name(cell.arm), *axes, f"seed {cell.seed}"])


def render(cell: Cell, notebook: dict[str, Any], run: Path) -> tuple[str, dict[str, str]]:
    """The page of an executed notebook as HTML, and its images by the names that it calls them.

    What its last cell said and what it drew comes first, the rest in the notebook's order, the configuration folded.
    """
    images: dict[str, str] = {}
    parts, first, cells = [], [], notebook["cells"]
    for each in cells:
        source = "".join(each["source"])
        if each["cell_type"] == "markdown":
            heading, _, rest = source.partition("\n")
            shown = rest if heading == "# One cell of the matrix" else source  # the title that all cells share
            parts.append(_markdown(shown))
            continue
        outputs = [_output(output, images) for output in each.get("outputs", [])]
        said = "".join(outputs)
        if "<img" in said or (each is cells[-1] and said):
            first.insert(0, said)
            said = "<p class='lrd-none'>Its output stands at the top of this page.</p>"
        parts.append(
            f"<div class='cell'><div class='cell_input'>{_python(source)}</div>"
            f"<div class='cell_output'>{said.replace('<details open>', '<details>')}</div></div>"
        )
    return "".join([_head(cell, run), *first, *parts]), images


def _head(cell: Cell, run: Path) -> str:
    rank = "full" if cell.rank is None else cell.rank
    command = f"lrd cell {cell.preset} --regime {cell.regime} --rank {rank} --seed {cell.seed}"
    command += "".join(f" --set {axis}={value}" for axis, value in cell.point.items())
    links = [
        "<a href='cell.zip'>its notebook as it ran</a>",
        "<a href='../../../notebooks/gallery.html'>the gallery that it is part of</a>",
        f"<code>{html.escape(command)} --runs elsewhere</code> runs it again",
    ]
    if student := results.models_of(run).get("student"):
        links.append(f"began from student <code>{html.escape(str(student))}</code>")
    return f"<h1>{html.escape(title(cell))}</h1><p>{' · '.join(links)}</p>"


@functools.cache  # cells of one preset share nearly all of their sources
def _markdown(source: str) -> str:
    return MarkdownIt().render(source)


@functools.cache
def _python(source: str) -> str:
    return highlight(source, IPython3Lexer(), HtmlFormatter())


def _output(output: dict[str, Any], images: dict[str, str]) -> str:
    """One output as HTML; an image goes to `images`."""
    if output["output_type"] == "stream":
        return _preformatted("".join(output["text"]), output["name"])
    if output["output_type"] == "error":
        return _preformatted("\n".join(output["traceback"]), "traceback")
    data = {kind: "".join(text) for kind, text in output["data"].items() if isinstance(text, str | list)}
    if "image/svg+xml" in data:
        images[name := f"{len(images)}.svg"] = light(data["image/svg+xml"])
        return f"<div class='output'><img src='{name}' alt='{DRAWN}'></div>"
    if "image/png" in data:
        return f"<div class='output'><img src='data:image/png;base64,{data['image/png'].strip()}' alt='{DRAWN}'></div>"
    if "text/html" in data:
        return f"<div class='output text_html'>{_shorter(data['text/html'])}</div>"
    return _preformatted(data["text/plain"], "text") if "text/plain" in data else ""


def _preformatted(text: str, kind: str) -> str:
    return f"<div class='output {kind} highlight'><pre>{ansi2html(text)}</pre></div>"


def _shorter(text: str) -> str:
    """The same with a class in place of the style of each of a completion's tokens, of which there are hundreds."""
    for colour, name in COLOURS.items():
        text = re.sub(
            rf"style='background:rgba\({colour},0?([\d.]+)\);border-bottom:2px solid rgb\({colour}\)'",
            rf"class={name} style=--a:\1",
            text,
        )
    return text


def light(svg: str) -> str:
    """Matplotlib's SVG in under half of its size: text as text instead of glyphs, coordinates to a tenth of a point."""
    svg = re.sub(r"<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= [dxy]=")[^"]*', lambda where: re.sub(r"-?\d+\.\d+", _rounded, where[0]), svg)
    if "<!-- $" not in svg:  # mathematics stays as it is drawn
        svg = re.sub(GLYPHS, _text, svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg).replace("\nL ", " ")  # nothing refers to a group; a line needs no L
    svg = svg.replace("<svg ", '<svg font-family="DejaVu Sans, Verdana, sans-serif" ', 1)
    return re.sub(r"\s+", " ", svg).replace("> <", "><")


def _text(glyphs: re.Match[str]) -> str:
    text, style, place, scale = glyphs.groups()
    return f'<text style="{style}" font-size="{100 * float(scale):g}" transform="{place}">{text}</text>'


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")
