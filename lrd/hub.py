"""Models and data sets of the Hugging Face Hub: where they lie here, and fetched where they do not. Torch-free.

A repository is used as its snapshot in the local cache, a directory like any other, and what is cached is not asked for
again: every cell of a matrix reads the same files, with or without a network.
"""

import functools
import re
from pathlib import Path

from lrd import UserError
from lrd.cell import TASKS, Cell, location

REACH = 5.0  # seconds for the Hub's first answer
# Math-Shepherd's own branch has pickles alone; this one is the Hub's bot's, with the same weights as safetensors.
REVISIONS = {"peiyi9979/math-shepherd-mistral-7b-prm": "refs/pr/5"}
SMALL = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]  # a model's configuration and its tokenizer
DATA = [".parquet", ".jsonl", ".json", ".csv"]


def on_hub(name: str) -> bool:
    """Whether a name is an id on the Hub: neither a path, nor a `.jsonl` file, nor a task that is made here."""
    return not re.match(r"\.?/", name) and not name.endswith(".jsonl") and name not in TASKS


def model(name: str, role: str, *, weights: bool) -> Path:
    """The directory of a model's checkpoint; of one on the Hub without its weights where only the rest is asked for.

    Raises `UserError` where it cannot be had.
    """
    return _snapshot(name, role, weights) if on_hub(name) else Path(location(name, role))


def data_set(name: str) -> Path:
    """The directory of a data set on the Hub. Raises `UserError` where it cannot be had."""
    return _snapshot(name, "data set", True)


def check(cell: Cell) -> None:
    """That the cell's student and data sets are there; from the Hub all but weights is fetched. Raises `UserError`."""
    model(cell.student, "student", weights=False)
    for source in (cell.train_data, cell.eval_data):
        if on_hub(source):
            data_set(source)


@functools.cache
def _snapshot(name: str, role: str, whole: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    kind, revision = "dataset" if role == "data set" else "model", REVISIONS.get(name, "main")
    wanted = None if kind == "dataset" else [*SMALL, "*.safetensors"] if whole else SMALL

    needed = DATA if kind == "dataset" else [".safetensors" if whole else ".json"]

    def fetch(offline: bool) -> Path:
        where = snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=wanted, local_files_only=offline
        )
        return Path(where)

    try:
        try:
            found = fetch(offline=True)
            if any(path.suffix in needed for path in found.rglob("*")):  # another program may have cached less
                return found
        except LocalEntryNotFoundError:
            pass
        HfApi().repo_info(
            name, repo_type=kind, revision=revision, timeout=REACH
        )  # the download's own would wait longer
        return fetch(offline=False)
    except Exception as error:  # two HTTP libraries' kinds, the Hub's and the file system's
        raise UserError(f"cannot load {role} {name!r}: {_reason(error)}") from None


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
