"""What the repository keeps beside runs: runs/published/<name>.json.xz and, of a large grid, <name>.csv.xz.

`lrd publish PRESET` writes a preset's, `python -m lrd.checks.verification` its own; analysis and pages read them.
"""

import json
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lrd import ROOT
from lrd.runs.files import compress, read_log, write_json, write_text

FOLDER = ROOT / "runs" / "published"


def record(name: str) -> dict[str, Any] | None:
    """The record of that name; None where there is none that can be read."""
    try:
        return json.loads(read_log(FOLDER / f"{name}.json"))
    except (OSError, ValueError, lzma.LZMAError):
        return None


def rows(name: str, text: Sequence[str] = ()) -> pd.DataFrame | None:
    """The table of that name, the columns of `text` as they are written; None where there is none."""
    path = FOLDER / f"{name}.csv.xz"
    return pd.read_csv(path, dtype=dict.fromkeys(text, "str")) if path.is_file() else None


def write(name: str, record: dict[str, Any], rows: pd.DataFrame | None = None) -> Path:
    """Writes a record, and a table with eight digits of each number, whole or not at all. Returns the record's path."""
    write_json(path := FOLDER / f"{name}.json", record)
    if rows is not None:
        write_text(path.with_suffix(".csv"), rows.to_csv(index=False, float_format="%.8g"))
        compress(path.with_suffix(".csv"))
    return compress(path)
