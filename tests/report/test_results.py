"""The results page's tables: a link a cell, and something for whatever was not run."""

from fakes import half

from lrd import results
from lrd.report.results import difference_table, outcome_table, regime_table


def test_the_table_leads_to_every_cell_that_has_a_page(tmp_path):
    found = results.load("tiny", half(tmp_path))
    shown = outcome_table(found, results.published())
    for cell, has_page in zip(found.cells.cell, found.cells.page):
        assert (f"href='../runs/tiny/{cell}/cell.html'" in shown) == has_page
    assert "0.800" in shown and "0.875" in shown and "1 absent" in shown


def test_tables_of_nothing(tmp_path):
    empty = results.load("tiny", tmp_path)
    published = results.published()
    tables = [
        outcome_table(empty, published),
        regime_table(empty, published),
        difference_table(empty),
    ]
    assert not any("nan" in shown for shown in tables)
    assert "&lt;span" not in regime_table(empty, published)
