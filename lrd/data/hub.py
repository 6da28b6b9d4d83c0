"""Models and data sets of the Hugging Face Hub: where they lie here, and fetched where they do not. Torch-free.

A repository is used as its snapshot in the local cache, a directory like any other, and what is cached is not asked for
again: every cell of a matrix reads the same files, with or without a network.
"""

import contextlib
import functools
import os
import re
from pathlib import Path

from lrd import ROOT, UserError
from lrd.cell import Cell
from lrd.names import is_path, located, on_hub, revision, tried
from lrd.sources import parts

REACH = 5.0  # seconds for the Hub's first answer
SMALL = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]  # a model's configuration and its tokenizer
DATA = [".parquet", ".jsonl", ".json", ".csv"]


def model_folder(name: str, role: str, *, weights: bool) -> Path:
    """The directory of a model's checkpoint; of one on the Hub without its weights where only the rest is asked for.

    Raises `UserError` where it cannot be had.
    """
    return _snapshot(name, role, weights) if on_hub(name) else Path(location(name, role))


def data_set_folder(name: str) -> Path:
    """The directory of a data set on the Hub. Raises `UserError` where it cannot be had."""
    return _snapshot(name, "data set", True)


def location(name: str, role: str) -> str:
    """Where `from_pretrained` finds a model: a directory for `./path`, else the Hub id itself."""
    if not is_path(name):
        return name
    path = located(name).resolve()
    if not os.path.isfile(path / "config.json"):  # unlike Path's own, no error for a name that is too long
        testbed = re.fullmatch(r"\./models/([\w-]+)/[\w-]+", name)
        known = testbed and (ROOT / "lrd" / "testbed" / f"{testbed[1]}.toml").is_file()
        make = f"; `lrd testbed {testbed[1]}` makes the models of that preset" if testbed and known else ""
        raise UserError(f"{role} {name!r} is not a directory with a Hugging Face checkpoint ({tried(name)}){make}")
    return str(located(name))


def fetch_inputs(cell: Cell) -> None:
    """Makes sure of the cell's student and data sets: from the Hub all but weights is fetched. Raises `UserError`."""
    model_folder(cell.student, "student", weights=False)
    for source in (*parts(cell.train_data), *parts(cell.eval_data)):
        if on_hub(source.path):
            data_set_folder(source.path)


def cached_folder(name: str, role: str, *, weights: bool = True) -> Path | None:
    """The directory of a model or data set of the Hub in the local cache; None where it is not there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    needed = DATA if role == "data set" else [".safetensors" if weights else ".json"]
    with contextlib.suppress(LocalEntryNotFoundError):
        found = _fetch(name, role, weights, offline=True)
        if any(path.suffix in needed for path in found.rglob("*")):  # another program may have cached less
            return found
    return None


@functools.cache
def _snapshot(name: str, role: str, weights: bool) -> Path:
    from huggingface_hub import HfApi

    try:
        if there := cached_folder(name, role, weights=weights):
            return there
        kind = "dataset" if role == "data set" else "model"
        # The download's own would wait longer.
        HfApi().repo_info(name, repo_type=kind, revision=revision(name), timeout=REACH)
        return _fetch(name, role, weights, offline=False)
    except Exception as error:  # two HTTP libraries' kinds, the Hub's and the file system's
        raise UserError(f"cannot load {role} {name!r}: {_reason(error)}") from None


def _fetch(name: str, role: str, weights: bool, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    kind = "dataset" if role == "data set" else "model"
    wanted = None if kind == "dataset" else [*SMALL, "*.safetensors"] if weights else SMALL
    options = {"repo_type": kind, "revision": revision(name), "allow_patterns": wanted, "local_files_only": offline}
    return Path(snapshot_download(name, **options))


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return "it is not in the local cache, and HF_HUB_OFFLINE is set; fetch it once without, or give a ./directory"
    if isinstance(error, errors.GatedRepoError):
        return "its owner grants access on request only; accept its terms on the Hub and log in (`hf auth login`)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub has none of that name, or a private one; a directory of the project starts with './'"
    if isinstance(error, errors.HFValidationError):
        return "that is no id on the Hub (`owner/name`); a directory of the project starts with './'"
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"it is not in the local cache, and the Hub cannot be reached or does not give it ({first})"
