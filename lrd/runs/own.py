"""A preset of one's own, `lrd matrix ./mine.toml`: its file is kept with its runs, where commands find it by name."""

from pathlib import Path

from lrd import UserError
from lrd.names import check_name, runs_root
from lrd.presets import FOLDER, parse
from lrd.runs.files import write_text


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
    if not kept.is_file() or kept.read_text(encoding="utf-8") != text:
        write_text(kept, text)
    return name
