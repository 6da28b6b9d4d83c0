"""The code that a result rests on: what `lrd/train/loop.py` imports, at any depth, the cell's reward, its notebook.

Pages and the command line are not part of it, so a changed figure keeps no cell from going on. Presets are compared as
settings, models and problems by their fingerprints. Of a reward of one's own (`module:function`), its module counts
and what that imports from beside it; of an installed package, the version says enough.
"""

import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from lrd import ROOT
from lrd.cell import reward_module
from lrd.names import beside, import_path, reward_terms

ROOTS = ("lrd.train.loop", "lrd.verifier.grader")  # the grader is started by name, as a process of its own
IMPORT = re.compile(r"^ *(?:from ([\w.]+) import (\([^)]*\)|.*)|import (\w[\w., ]*))", re.MULTILINE)
DIGITS = 12  # of a file's SHA-256 that are kept
CALLED_FROM = "LRD_CALLED_FROM"  # environment: where `lrd` was called; kernels and Ray's workers run elsewhere


def called_from() -> str:
    """The directory where `lrd` was called, or this process runs."""
    return os.environ.get(CALLED_FROM) or os.getcwd()


def folders() -> list[str]:
    """Where a reward of one's own is looked for first: beside the preset of one's own, then where `lrd` was called."""
    return list(dict.fromkeys([*beside(), called_from()]))


def digests(notebook: str, regimes: Iterable[str]) -> dict[str, str]:
    """Path in the clone → digest of each such file. Of the notebook the code counts, without its parameters.

    Files of a reward of one's own are named by their path from where it is imported.
    """
    regimes = _with_terms(regimes)
    mine = own(regimes)
    used = (name for source in mine.values() for name in _imports(source, ""))
    given = (path[0] for regime in regimes if (path := import_path(regime)))
    found = {path: digest(source) for path, source in mine.items()}
    found |= imported([*ROOTS, *map(reward_module, regimes), *given, *used])
    path = f"notebooks/{notebook}.ipynb"
    if (ROOT / path).is_file():
        found[path] = digest(_code(ROOT / path))
    return dict(sorted(found.items()))


def imported(modules: Iterable[str]) -> dict[str, str]:
    """Path in the clone → digest of each file of the library that these modules are or import, at any depth."""
    return {path: digest(source) for path, source in _walk(modules, ROOT, library=True).items()}


def own(regimes: Iterable[str]) -> dict[str, bytes]:
    """Path → source of each file that rewards of one's own lie in, and of what these import from beside them."""
    found: dict[str, bytes] = {}
    for module, _ in filter(None, map(import_path, _with_terms(regimes))):
        if folder := _folder(module.partition(".")[0]):
            found |= _walk([module], folder, library=False)
    return found


def _with_terms(regimes: Iterable[str]) -> list[str]:
    """The regimes, and what each of them sums."""
    return [name for regime in regimes for name in (regime, *(term for _, term in reward_terms(regime)))]


def _folder(package: str) -> Path | None:
    """Where a package would be imported from; None for the library, what is installed, and what there is not."""
    spec = PathFinder.find_spec(package, [*folders(), *sys.path])
    if spec is None or package == "lrd":
        return None
    folder = Path([*(spec.submodule_search_locations or []), spec.origin or ""][0]).parent
    return None if folder in map(Path, sysconfig.get_paths().values()) else folder


def _walk(modules: Iterable[str], root: Path, library: bool) -> dict[str, bytes]:
    """Path → source of each file below `root` that these modules are or import: of the library, or all but that."""
    found: dict[str, bytes] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if (name.partition(".")[0] == "lrd") != library:
            continue
        package = name.rpartition(".")[0]
        for path, within in (f"{name.replace('.', '/')}.py", package), (f"{name.replace('.', '/')}/__init__.py", name):
            if path not in found and (root / path).is_file():
                found[path] = source = (root / path).read_bytes()
                waiting += [package, *_imports(source, within)]
    return found


def changed(then: Any, now: dict[str, str]) -> list[str]:
    """The files whose digests differ. None where there is no record of them: runs from before they were kept."""
    if not isinstance(then, dict) or not then:
        return []
    return sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))


def _imports(source: bytes, package: str) -> list[str]:
    """Dotted names that a source of a package imports; some stand for modules, others for values."""
    found = []
    for of, names, modules in IMPORT.findall(source.decode(errors="replace")):
        if of.startswith(".") and not package:  # which Python refuses
            continue
        bases = [resolve_name(of, package)] if of else [part.split()[0] for part in modules.split(",") if part.strip()]
        found += [*bases, *(f"{bases[0]}.{name}" for name in re.findall(r"\w+", names))]
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
