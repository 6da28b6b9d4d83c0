"""Names: what one may be, and what that of a model or of a data set says."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lrd import ROOT, UserError

TASKS = ("chain", "arithmetic")
"""The tasks whose problems `lrd/data/problems.py` makes."""
GYM = "reasoning-gym/"
"""What the names of reasoning-gym's families begin with (`lrd/data/gym.py`)."""
BESIDE = "LRD_BESIDE"
"""Environment: the directories of a preset of one's own and of those that it extends, one a line."""


def is_name(name: str) -> bool:
    """Whether it can be that of a file, whatever is joined before it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def check_name(name: str, what: str) -> str:
    """The name as it is where `is_name` holds; else a `UserError`."""
    if not is_name(name):
        raise UserError(f"{what} {name!r} is no name: it takes letters, digits, '.', '_' and '-', the first no sign")
    return name


def runs_root(runs: str | Path | None = None) -> Path:
    """`runs/` of the clone, or another directory; relative paths count from the clone, as everything else does."""
    return ROOT / os.path.expanduser(runs or "runs")


def beside() -> list[str]:
    """The directories of the preset of one's own that a command is about, where its files are looked for first."""
    return list(filter(None, os.environ.get(BESIDE, "").split("\n")))


def located(name: str) -> Path:
    """Where a path of a setting leads: beside a preset of one's own if something lies there, else from the clone."""
    places = [Path(folder, name) for folder in beside()]
    return next((path for path in places if os.path.exists(path)), ROOT / name)  # Path's own raises for a long name


def nearest(word: Any, known: Iterable[str]) -> str:
    """` (did you mean steps?)`, or nothing where no known name is like it."""
    near = difflib.get_close_matches(str(word), list(known), n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


class CodebookName(NamedTuple):
    """What `codebook-<keys>x<bits>-<seed>` says; `lrd/data/codebook.py` makes it."""

    keys: int
    bits: int  # of each key's value
    seed: int


def codebook_name(source: str) -> CodebookName | None:
    """The parts of a codebook's name; None for the name of anything else."""
    parts = re.fullmatch(r"codebook-(\d+)x(\d+)-(\d+)", source)
    return CodebookName(*map(int, parts.groups())) if parts else None


def import_path(regime: str) -> tuple[str, str] | None:
    """Module and function of a reward of one's own, `module:function`; None for any other name."""
    name = r"[A-Za-z_]\w*"
    parts = re.fullmatch(rf"({name}(?:\.{name})*):({name})", regime, re.ASCII)
    return (parts[1], parts[2]) if parts and len(regime) <= 100 else None  # it is part of a directory's name


def reward_terms(regime: str) -> list[tuple[float, str]]:
    """Weight and name of each reward that a regime sums, `outcome+0.5*module:function`; of any other, itself once.

    Empty where it is no such sum.
    """
    term = r"(?:(\d+(?:\.\d+)?)\*)?([A-Za-z_][\w.:]*)"
    if len(regime) > 150 or not re.fullmatch(rf"{term}(?:[+-]{term})*", regime, re.ASCII):
        return []  # it is part of a directory's name
    found = re.findall(rf"([+-]?){term}", regime, re.ASCII)
    return [(float(f"{sign}{weight or 1}"), name) for sign, weight, name in found]


def is_path(name: str) -> bool:
    """Whether a model or data set is given as a directory of the project or of the host."""
    return bool(re.match(r"\.{0,2}/", name))


def on_hub(name: str) -> bool:
    """Whether a model or data set is an id on the Hub: neither a path, nor a `.jsonl` file, nor made here."""
    made_here = name in TASKS or name.startswith(GYM) or codebook_name(name)
    return not (is_path(name) or name.endswith(".jsonl") or made_here)


def revision(name: str) -> str:
    """The revision that is used of a repository on the Hub.

    Math-Shepherd's own branch has pickles alone; the one of the Hub's bot has the same weights as safetensors.
    """
    return "refs/pr/5" if name == "peiyi9979/math-shepherd-mistral-7b-prm" else "main"


def tried(name: str) -> str:
    """Where a path of a setting was looked for: a shell elsewhere takes it for one of its own directory."""
    places = [*beside(), str(ROOT)]
    paths = dict.fromkeys(os.path.normpath(os.path.join(folder, name)) for folder in places)
    return f"tried {' and '.join(paths)}; paths count from {' and from '.join(places)}"
