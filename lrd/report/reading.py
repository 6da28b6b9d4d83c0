"""A small Sphinx extension for readers: Previous and Next over chapters, terms that explain themselves, roles.

Executed cells are pages, hundreds of them. They stand in no chapter's chain, and a cell's page leads to none.
"""

from typing import Any

from docutils import nodes

RUNS = "runs/"  # below it lie executed notebooks
GLOSSARY = "book/glossary"
# What Sphinx writes that a screen reader would take for something else (rules of axe-core): a signature of several
# lines is no list of definitions, and an entry of a bibliography is an item of its list.
ROLES = {
    '<dl>\n<dd><em class="sig-param">': '<dl role="none">\n<dd><em class="sig-param">',
    '<dd><em class="sig-param">': '<dd role="none"><em class="sig-param">',
    'role="doc-biblioentry"': 'role="listitem"',
}


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-resolved", _explain_terms)
    app.connect("html-page-context", _chain_chapters)
    app.connect("html-page-context", _mend_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _explain_terms(app: Any, doctree: nodes.document, page: str) -> None:
    """Gives every link to a term of the glossary its definition as a title, which browsers show on hover."""
    links = [link for link in doctree.findall(nodes.reference) if "#term-" in link.get("refuri", "")]
    if not links or page == GLOSSARY:
        return
    defined = definitions(app.env.get_doctree(GLOSSARY))
    for link in links:
        link["reftitle"] = defined[link["refuri"].partition("#")[2]]
        link["classes"].append("lrd-term")


def definitions(glossary: nodes.document) -> dict[str, str]:
    """Id of a term → its definition as plain text."""
    return {
        name: " ".join(item[-1].astext().split())
        for item in glossary.findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for name in term["ids"]
    }


def _chain_chapters(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Puts the chapters before and after a chapter in place of the pages there, which may be cells."""
    relations = app.builder.relations
    for way, index in (("prev", 1), ("next", 2)):
        if page not in relations or page.startswith(RUNS):
            context[way] = None
            continue
        other = relations[page][index]
        while other and other.startswith(RUNS):
            other = relations[other][index]
        link = (
            {"link": app.builder.get_relative_uri(page, other), "title": app.env.titles[other].astext()}
            if other
            else None
        )
        context[way] = link


def _mend_roles(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    for written, meant in ROLES.items():
        context["body"] = context.get("body", "").replace(written, meant)
