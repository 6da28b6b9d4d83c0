"""The code that a result rests on: what `lrd/train/loop.py` imports, at any depth, the cell's reward, its notebook.

Pages and the command line are not part of it, so a changed figure keeps no cell from going on. Presets are compared as
settings, models and problems by their fingerprints.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from lrd import ROOT
from lrd.cell import REGIMES

ROOTS = ("lrd.train.loop", "lrd.verifier.grader")  # the grader is started by name, as a process of its own
IMPORT = re.compile(r"^ *(?:from ((?:lrd\b|\.)[\w.]*) import (\([^)]*\)|.*)|import (lrd[\w.]*))", re.MULTILINE)
DIGITS = 12  # of a file's SHA-256 that are kept


def digests(notebook: str, regimes: Iterable[str]) -> dict[str, str]:
    """Path in the clone → digest of each such file. Of the notebook the code counts, without its parameters."""
    found = imported([*ROOTS, *(REGIMES[regime] for regime in regimes)])
    path = f"notebooks/{notebook}.ipynb"
    if (ROOT / path).is_file():
        found[path] = digest(_code(ROOT / path))
    return dict(sorted(found.items()))


def imported(modules: Iterable[str]) -> dict[str, str]:
    """Path in the clone → digest of each file of the library that these modules are or import, at any depth."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        package = name.rpartition(".")[0]
        for path, within in (f"{name.replace('.', '/')}.py", package), (f"{name.replace('.', '/')}/__init__.py", name):
            if path not in found and (ROOT / path).is_file():
                source = (ROOT / path).read_bytes()
                found[path] = digest(source)
                waiting += [package, *_imports(source.decode(errors="replace"), within)]
    return found


def changed(then: Any, now: dict[str, str]) -> list[str]:
    """The files whose digests differ. None where there is no record of them: runs from before they were kept."""
    if not isinstance(then, dict) or not then:
        return []
    return sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))


def _imports(source: str, package: str) -> list[str]:
    """Dotted names that a source of a package imports from the library; some stand for modules, others for values."""
    found = []
    for of, names, module in IMPORT.findall(source):
        base = module or resolve_name(of, package)
        found += [base, *(f"{base}.{name}" for name in re.findall(r"\w+", names))]
    return found


def _code(notebook: Path) -> bytes:
    """What a notebook runs, apart from its parameters: opened and run by hand, it stores outputs and stays the same."""
    text = notebook.read_bytes()
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        shown = ["".join(cell["source"]) for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
        return "\n".join(shown).encode()
    except (ValueError, LookupError, TypeError, AttributeError):  # being edited
        return text


def digest(source: bytes) -> str:
    """What tells a source from another."""
    return hashlib.sha256(source).hexdigest()[:DIGITS]
