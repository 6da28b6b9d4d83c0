"""A preset of one's own, `lrd matrix ./mine.toml`: its file is kept with its runs, where commands find it by name.

So is the directory that it came from: files that it names by relative paths, and its rewards, are looked for there.
"""

import os
from pathlib import Path

from lrd import UserError
from lrd.names import check_name, runs_root
from lrd.presets import FOLDER, chain_of, parse
from lrd.runs.files import write_text

ORIGIN = "folder.txt"


def adopt(given: str, runs: str | None = None) -> str:
    """Keeps the preset of a file as `<runs>/<name>/preset.toml` and returns its name, which is the file's.

    A file that has changed since takes the place of the one kept. Raises `UserError` where it cannot be read, is no
    preset, or has the name of one of the library's.
    """
    path = Path(given).expanduser()
    name = check_name(path.stem, "preset")
    if (FOLDER / f"{name}.toml").is_file():
        raise UserError(f"{given} has the name of a preset of the library; give the file another one")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the preset {given}: {error}") from None
    parse(name, text)
    kept = runs_root(runs) / name / "preset.toml"
    for file, content in (kept, text), (kept.with_name(ORIGIN), f"{os.path.abspath(path.parent)}\n"):
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            write_text(file, content)
    return name


def folders(preset: str, runs: str | None = None) -> list[str]:
    """The directories that the preset, and those that it extends, came from; none of the library's."""
    kept = (runs_root(runs) / name / ORIGIN for name, _ in chain_of(preset))
    return [path.read_text(encoding="utf-8").removesuffix("\n") for path in kept if path.is_file()]
