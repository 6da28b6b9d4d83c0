"""What a rerun of a cell needs to know: its command, the code, versions, hardware, and which models it began from."""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from lrd import ROOT, UserError
from lrd.cell import Cell
from lrd.names import located, on_hub, revision, runs_root
from lrd.runs.files import shown_path
from lrd.sources import parts

# A patch that `git apply` takes, whatever the user has configured.
PATCH = "--no-ext-diff --no-textconv --no-color --binary --src-prefix=a/ --dst-prefix=b/".split()
LONGEST = 2**18  # bytes of a file unknown to git that provenance keeps; a longer one is only named


def provenance(cell: Cell, runs: str | Path | None = None) -> dict[str, Any]:
    """Everything that a rerun needs to know: code, versions, hardware, command, seeds. No environment variables."""
    return {
        "command": _command(cell, runs),
        "git": {"sha": git("rev-parse", "HEAD")} | changes(),
        "python": platform.python_version(),
        "packages": _packages(),
        "hardware": {
            "platform": platform.platform(),
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": gpus(),
        },
        "seed": cell.seed,
    }


def _packages() -> dict[str, str]:
    """The installed version of each package; of one that is there twice, that which Python finds first."""
    found = {d.name: d.version for d in reversed(list(metadata.distributions()))}
    return dict(sorted(found.items(), key=lambda package: package[0].lower()))


def _command(cell: Cell, runs: str | Path | None) -> str:
    """The command line of this very cell, settings that differ from its preset's included, and where it lies."""
    words = ["lrd", "cell", cell.preset, "--regime", cell.regime, "--rank", str(cell.rank or "full")]
    words += ["--seed", str(cell.seed)]
    with contextlib.suppress(UserError):  # of a cell that was made by hand, without a preset
        usual = Cell.load(cell.preset, regime=cell.regime, rank=cell.rank, seed=cell.seed, **cell.point).config
        changed = {key: value for key, value in cell.config.items() if value != usual[key]}
        for key, value in (cell.point | changed).items():
            words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]  # JSON values are TOML values
    return shlex.join(words + (["--runs", shown_path(runs_root(runs))] if runs_root(runs) != runs_root() else []))


def fingerprint(name: str) -> str | None:
    """What tells a model or a file of problems from another of the same name; None where it is not at hand.

    A hash of a checkpoint's configuration and of size and both ends of its weights, or of a whole file of problems; the
    revision of a model of the Hub in the local cache. Of several sources of problems, that of each.
    """
    if (of := parts(name)) and [source.path for source in of] != [name]:
        prints = [fingerprint(source.path) for source in of]
        return "+".join(map(str, prints)) if any(prints) else None
    if name.endswith(".jsonl"):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if (path := located(name)).is_file() else None
    if on_hub(name):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json", revision=revision(name))
        return Path(cached).parent.name if isinstance(cached, str) else None
    folder, digest = located(name), hashlib.sha256()
    if not (folder / "config.json").is_file():
        return None
    digest.update((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(f"{path.name} {size}".encode() + file.read(2**20))
            file.seek(max(0, size - 2**20))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def git(*args: str, **environment: str) -> str | None:
    """What git answers about the clone; None where there is no git, or the clone is no repository.

    Neither a repository that the clone lies in nor one that GIT_DIR names is asked in its place.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ours = {"GIT_DIR": str(ROOT / ".git"), "GIT_WORK_TREE": str(ROOT)} | environment
    try:
        done = subprocess.run(["git", *args], cwd=ROOT, env=others | ours, capture_output=True)
    except OSError:  # no git here
        return None
    # Decoded here, since a pipe of text would turn the \r\n of a diff into \n.
    return done.stdout.decode(errors="replace").removesuffix("\n") if done.returncode == 0 else None


def changes() -> dict[str, Any]:
    """How the working tree differs from its commit: a diff for `git apply`.

    Code, presets and notebooks that git does not know yet are part of it, since a new reward is such a file; of those
    too long for it, `untracked` gives the size in bytes.
    """
    unknown = git("ls-files", "-z", "--others", "--exclude-standard", "--", "lrd", "notebooks") or ""
    sizes = {name: (ROOT / name).stat().st_size for name in unknown.split("\0") if (ROOT / name).is_file()}
    short = [name for name, size in sizes.items() if size <= LONGEST]
    with tempfile.TemporaryDirectory() as folder:
        index = f"{folder}/index"  # git's own stays as it is
        with contextlib.suppress(OSError):
            shutil.copy2(ROOT / (git("rev-parse", "--git-path", "index") or ""), index)
        if short:
            git("add", "--intent-to-add", "--", *short, GIT_INDEX_FILE=index)
        diff = git("diff", *PATCH, "HEAD", "--", ".", ":!runs", GIT_INDEX_FILE=index)
    return {"diff": diff and diff + "\n", "untracked": {k: n for k, n in sizes.items() if k not in short}}


def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, in nvidia-smi's words; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(query, capture_output=True, encoding="utf-8", timeout=30)
        return done.stdout.splitlines() if done.returncode == 0 else []
    return []


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or sys.platform
