"""The page of the library's own functions, read from the source: nothing is imported, so no torch is needed.

A Sphinx extension (see `_config.yml`): on `book/api.md`, `{modules}` becomes all modules, package by package: their
docstrings and the signatures, fields and docstrings of what is public in them. A docstring is Markdown. On
`book/study.md`, `{settings}` becomes the table of a cell's settings.
"""

import ast
import inspect
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lrd import ROOT
from lrd.cell import settings

PAGE, STUDY = "book/api", "book/study"
MODULES, SETTINGS = "```{modules}\n```", "```{settings}\n```"

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("source-read", _expand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _expand(app: Any, document: str, source: list[str]) -> None:
    if document == PAGE:
        source[0] = source[0].replace(MODULES, "\n".join(described(*heading) for heading in outline()))
    if document == STUDY:
        source[0] = source[0].replace(SETTINGS, settings_table())


def settings_table() -> str:
    """The settings of a cell, as the end of `lrd cell --help` has them, as a table in Markdown."""
    rows = [(f"`{key}`", kind, f"`{default}`" if default else "", what) for key, kind, default, what in settings()]
    rows = [("setting", "takes", "default", "what it is"), ("---",) * 4, *rows]
    return "\n".join(f"| {' | '.join(row)} |".replace("<", "\\<") for row in rows)


def outline(root: Path = ROOT) -> list[tuple[str, str]]:
    """Every module by its dotted name, with the marks of its heading: a package's modules stand beneath it.

    Packages come in the order of the floors that import-linter holds them to (`pyproject.toml`), the highest first.
    """
    paths = [path.relative_to(root).with_suffix("") for path in sorted((root / "lrd").rglob("*.py"))]
    modules = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    linter = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    floors = [floor for contract in linter["contracts"] for floor in contract.get("layers", [])]
    tops = dict.fromkeys(["lrd", *(name.strip() for floor in floors for name in floor.split("|"))])
    place = {top: i for i, top in enumerate(tops)}
    found = sorted(modules, key=lambda module: (place[".".join(module.split(".")[:2])], module))
    return [(module, "##" if module in tops else "###") for module in found]


def described(module: str, marks: str = "###", root: Path = ROOT) -> str:
    """One module as Markdown with Sphinx's Python directives. Raises `FileNotFoundError` for an unknown one."""
    base = root.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    _qualify(tree)
    parts = [f"{marks} `{module}`", f"```{{py:module}} {module}\n```", ast.get_docstring(tree) or ""]
    for node in tree.body:
        if isinstance(node, Definition) and _public(node.name):
            parts.append(_function(node, "function"))
        elif isinstance(node, ast.ClassDef) and _public(node.name):
            parts.append(_class(node, text.splitlines()))
    parts += [
        _directive("data", name, _options(type=annotation, value=value), doc)
        for name, annotation, value, doc in _constants(tree)
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def signature(node: Definition, *, method: bool = False) -> str:
    """`(a: int, *, b: str = 'x') -> bool`, as the source has it; a method's without `self`."""
    arguments = node.args
    if method and "staticmethod" not in _decorators(node):
        positional = arguments.posonlyargs or arguments.args
        del positional[:1]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    text = f"({ast.unparse(arguments)}){returned}"
    # A blank before a lone axis only tells linters that it is no forward reference.
    return re.sub(r"\[(\w+), ' (\w+)'\]", r"[\1, '\2']", text)


def _qualify(tree: ast.Module) -> None:
    """Puts the module before each of our names in annotations, for links: several modules may have a `Pair`.

    `python_use_unqualified_type_names` in `_config.yml` shows them as they are written.
    """
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {name.name: f"{node.module}.{name.name}" for node in imports for name in node.names if not name.asname}
    for node in ast.walk(tree):
        places = [node.annotation] if isinstance(node, ast.arg | ast.AnnAssign) else []
        places += [node.returns] if isinstance(node, Definition) else []
        for name in (found for place in places if place for found in ast.walk(place)):
            if isinstance(name, ast.Name) and homes.get(name.id, "").startswith("lrd."):
                name.id = homes[name.id]


def _function(node: Definition, kind: str, *, method: bool = False) -> str:
    decorators = _decorators(node)
    if method and decorators & {"property", "cached_property", "functools.cached_property"}:
        returned = ast.unparse(node.returns) if node.returns else None
        return _directive("property", node.name, _options(type=returned), ast.get_docstring(node))
    flags = [f":{name}:" for name in ("classmethod", "staticmethod") if name in decorators]
    return _directive(kind, node.name + signature(node, method=method), flags, ast.get_docstring(node))


def _class(node: ast.ClassDef, lines: list[str]) -> str:
    start, parts = "", [ast.get_docstring(node) or ""]
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and _public(item.target.id):
            value = ast.unparse(item.value) if item.value else None
            options = _options(type=ast.unparse(item.annotation), value=value)
            parts.append(_directive("attribute", item.target.id, options, _comment(lines[(item.end_lineno or 1) - 1])))
        elif isinstance(item, Definition) and item.name == "__init__":
            start = signature(item, method=True)
            parts.insert(1, ast.get_docstring(item) or "")
        elif isinstance(item, Definition) and _public(item.name):
            parts.append(_function(item, "method", method=True))
    return _directive("class", node.name + start, [], "\n\n".join(part for part in parts if part))


def _constants(tree: ast.Module) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Public names that the module assigns and explains in a string beneath; a long value is left to the source."""
    for node, after in zip(tree.body, tree.body[1:]):
        match node, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ) if _public(name):
                annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else None
                value = ast.unparse(node.value) if node.value else ""
                yield name, annotation, value if len(value) <= 60 else None, inspect.cleandoc(doc)


def _directive(kind: str, what: str, options: list[str], content: str | None) -> str:
    inner = max((len(fence) for fence in re.findall(r"^\s*(:{3,})", content or "", re.MULTILINE)), default=2)
    fence = ":" * (inner + 1)
    return "\n".join([f"{fence}{{py:{kind}}} {what}", *options, "", textwrap.dedent(content or "").strip(), fence])


def _options(**values: str | None) -> list[str]:
    return [f":{name}: {value}" for name, value in values.items() if value]


def _comment(line: str) -> str:
    """What a field's line says after it."""
    return line.partition("  # ")[2].strip()


def _decorators(node: Definition) -> set[str]:
    return {ast.unparse(decorator) for decorator in node.decorator_list}


def _public(name: str) -> bool:
    return not name.startswith("_")
