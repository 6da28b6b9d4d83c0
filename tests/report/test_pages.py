"""The pages of executed cells: what came out first, nothing lost of the notebook, pictures in half of their size."""

import io
import json
import re
import zipfile
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest
from fakes import NOTEBOOK, write_cell

from lrd.cell import Cell, grid
from lrd.report import display, pages


def code(source, *outputs):
    return {"cell_type": "code", "source": source, "outputs": list(outputs), "metadata": {}}


def shown(**data):
    return {"output_type": "display_data", "data": data, "metadata": {}}


def said(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": [text]}


@pytest.mark.parametrize(
    ("preset", "name", "title", "options"),
    [
        ("tiny", "process-r4-s1", "process, rank 4, seed 1", "--regime process --rank 4 --seed 1"),
        ("fair-lr", "outcome-full-learning_rate=1e-05-training=2-s100",
         "outcome, full fine-tuning, learning_rate=1e-05, training 2, seed 100",
         "--regime outcome --rank full --seed 100 --set learning_rate=1e-05 --set training=2"),
        ("fair", "process-r4-training=2-s1", "process, rank 4, training 2, seed 1",
         "--regime process --rank 4 --seed 1 --set training=2"),
        ("law", "supervised-r1-codebook=small-1-adapter=rank-1-s0",
         "supervised, rank 1, codebook=small-1, adapter=rank-1, seed 0",
         "--regime supervised --rank 1 --seed 0 --set codebook=small-1 --set adapter=rank-1"),
    ],
)  # fmt: skip
def test_a_page_is_named_by_its_cells_place(tmp_path, preset, name, title, options):
    (cell,) = [cell for cell in grid(preset) if cell.name == name]
    text, images = pages.render(cell, NOTEBOOK, tmp_path)
    assert text.startswith(f"<h1>{title}</h1>") and f"<code>lrd cell {preset} {options} --runs elsewhere</code>" in text
    assert "One cell of the matrix" not in text and "A regime, an arm and a seed." in text and images == {}


def test_a_page_names_the_student_that_its_cell_began_from(tmp_path):
    path = write_cell(tmp_path, grid("fair")[0], {0: 5})
    (path / "provenance.json").write_text(json.dumps({"run": {"models": {"student": "ab<12"}}}))
    assert "began from student <code>ab&lt;12</code>" in pages.render(grid("fair")[0], NOTEBOOK, path)[0]


def test_what_came_out_comes_first_and_all_the_rest_after_it(tmp_path):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'></svg>"
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": "An exception <span>above</span>"},
            code("x < 1", shown(**{"text/html": "<details open><summary>all settings</summary></details>"})),
            code("warn()", said("a \x1b[31mred\x1b[0m <b>", "stderr")),
            code("draw()", shown(**{"image/svg+xml": [svg], "text/plain": "<Figure>"})),
            code("1 / 0", {"output_type": "error", "traceback": ["Zero\x1b[0m <division>"]}),
            code("print()", said("pass@1 0.25 → 0.5")),
        ]
    }
    text, images = pages.render(grid("tiny")[0], notebook, tmp_path)
    order = [
        "pass@1 0.25 → 0.5",
        "<img src='0.svg'",
        "<span>above</span>",
        "<details><summary>all settings",
        "&lt;b&gt;",
    ]
    order += ["Zero", "&lt;division&gt;", "print"]
    assert sorted(map(text.index, order)) == list(map(text.index, order))
    assert text.count("<img") == text.count("0.25 → 0.5") == 1 and list(images) == ["0.svg"] and "ansi-red" in text


def test_the_colours_of_tokens_are_classes_with_the_same_strength(tmp_path):
    row = {"step": 1, "problem": "p", "answer": "7", "correct": True, "truncated": False, "tokens": ["a", "b", "c"],
           "token_rewards": [1.0, -0.5, None], "deposit_mask": [True, True, False],
           "advantages": [1.0, -1.0, 0.0]}  # fmt: skip
    notebook = {"cells": [code("", shown(**{"text/html": display.completions([row])})), code("")]}
    text, _ = pages.render(grid("tiny")[0], notebook, tmp_path)
    assert "<span class=lrd-g style=--a:.68 title='deposit 1, advantage 1'>a</span>" in text
    assert "<span class=lrd-b style=--a:.38 title='deposit -0.5, advantage -1'>b</span>" in text
    assert "rgba(" not in text


@pytest.mark.parametrize("label", ["a label & more", "$10^{-2}$"])
def test_a_picture_is_less_than_it_was_and_says_the_same(label):
    figure, axes = plt.subplots()
    axes.plot([0, 1, 2], [0.9981, 0.9987, 0.9993])
    axes.set(ylabel=label)
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "path"}):
        figure.savefig(file, format="svg")
    plt.close(figure)
    light = pages.light(file.getvalue())
    ElementTree.fromstring(light)
    assert len(light) < (0.95 if "$" in label else 0.6) * len(file.getvalue())
    if "$" not in label:
        texts = [text.get_text() for text in axes.get_yticklabels() if f">{text.get_text()}<" in light]
        assert len(texts) >= 3 and "0.9986" in texts  # the numbers of the axis are not rounded
        assert ">a label &amp; more</text>" in light and not re.search(r'href="#DejaVu', light)


def test_the_site_has_a_page_and_the_notebook_of_every_cell(tmp_path):
    runs, site = tmp_path / "runs", tmp_path / "site"
    cells = [Cell.load("tiny", regime="outcome", rank=rank, seed=0) for rank in (1, 4)]
    for cell in cells:
        write_cell(runs, cell, {0: 5, 5: 8})
    empty = site / f"{pages.EMPTY}.html"
    empty.parent.mkdir(parents=True)
    empty.write_text(f"<title>{pages.TITLE}</title>{pages.BODY}<a href='{pages.EMPTY}'>")
    pages.write(site, runs, workers=1)
    assert sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html")) == [
        "runs/tiny/outcome-r1-s0/cell.html",
        "runs/tiny/outcome-r4-s0/cell.html",
    ]
    for cell in cells:
        page = site / "runs/tiny" / cell.name / "cell.html"
        text = page.read_text()
        assert text.startswith(f"<title>{pages.title(cell)}</title><h1>") and "runs/of" not in text
        with zipfile.ZipFile(page.parent / "cell.zip") as packed:
            ran = packed.read(f"{cell.name}/cell.ipynb")
            assert packed.namelist()[1] == f"{cell.name}/config.json"
        assert ran == (runs / "tiny" / cell.name / "cell.ipynb").read_bytes()
