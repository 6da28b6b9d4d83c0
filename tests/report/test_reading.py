"""The reader's way: chapters follow chapters, and a term's link says what the term means."""

from types import SimpleNamespace

from docutils import nodes

from lrd.report import reading

ORDER = ["notebooks/law", "runs/law/a/cell", "runs/law/b/cell", "notebooks/budget", "runs/fair/c/cell"]


def chained(page):
    ends = [None, *ORDER, None]
    relations = {name: ["root", before, after] for before, name, after in zip(ends, ORDER, ends[2:])}
    titles = {name: nodes.title("", name.upper()) for name in ORDER}
    builder = SimpleNamespace(relations=relations, get_relative_uri=lambda page, other: f"{other}.html")
    context = {"prev": "as it was", "next": "as it was"}
    reading._chain_chapters(
        SimpleNamespace(builder=builder, env=SimpleNamespace(titles=titles)), page, "", context, None
    )
    return context["prev"], context["next"]


def test_chapters_follow_chapters_and_cells_stand_apart():
    assert chained("notebooks/law") == (None, {"link": "notebooks/budget.html", "title": "NOTEBOOKS/BUDGET"})
    assert chained("notebooks/budget") == ({"link": "notebooks/law.html", "title": "NOTEBOOKS/LAW"}, None)
    assert chained("runs/law/b/cell") == chained("search") == (None, None)


def test_a_link_to_a_term_has_its_definition():
    item = nodes.definition_list_item(
        "", nodes.term("", "cell", ids=["term-cell"]), nodes.definition("", nodes.paragraph("", "One\nrun."))
    )
    glossary = nodes.document(None, None)
    glossary += nodes.definition_list("", item)
    assert reading.definitions(glossary) == {"term-cell": "One run."}
    page = nodes.document(None, None)
    page += nodes.reference("", "cells", refuri="../book/glossary.html#term-cell", classes=["internal"])
    page += nodes.reference("", "other", refuri="other.html")
    app = SimpleNamespace(env=SimpleNamespace(get_doctree=lambda name: {"book/glossary": glossary}[name]))
    reading._explain_terms(app, page, "notebooks/law")
    term, other = page.findall(nodes.reference)
    assert term["reftitle"] == "One run." and "lrd-term" in term["classes"]
    assert "reftitle" not in other
