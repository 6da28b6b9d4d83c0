"""The files of runs: written whole or not at all and without secrets, logs read line by line, packed or not."""

import contextlib
import json
import lzma
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lrd import ROOT, UserError
from lrd.runs.redact import redact

DIGITS = 6  # of a number in a packed log; pages print four at most
TEXT = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]  # of no aligned words


class Unreadable(UserError):
    """A record of the cell is not as a run writes it: a matter of this cell alone."""


def shown_path(path: Path) -> str:
    """A path as messages name it: from the clone where it lies there."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, and without secrets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, redact(text))


def write_json(path: Path, value: Any) -> None:
    """Atomically, and without secrets; a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A log, atomically, and as its rows were recorded: the digits of a number may be some short secret's, too."""
    _write(path, "".join(map(_line, rows)))


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends to a log, all in one write and on disk when it returns; a number that is not finite becomes null."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(map(_line, rows)))
        file.flush()
        os.fsync(file.fileno())  # a checkpoint that outlives a loss of power says that these lines are there


def _write(path: Path, text: str) -> None:
    """Written beside the file, flushed to disk, then put in its place."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
    replace(part, path)


def replace(part: Path, path: Path) -> None:
    """Puts a file in the place of another so that a loss of power, too, leaves one of them whole."""
    _flush(part)
    part.replace(path)
    with contextlib.suppress(OSError):  # not every file system flushes directories
        _flush(path.parent)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def read_json(path: Path) -> dict[str, Any] | None:
    """The file's object, or None where there is no file. Raises `Unreadable` where it does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise Unreadable(f"{path.parent.name}/{path.name} is not readable JSON ({error}); move it away") from None
    if not isinstance(value, dict):
        raise Unreadable(f"{path.parent.name}/{path.name} is not a JSON object; move it away")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a last line that was cut by a kill is left out, as are lines that are no JSON object."""
    return [row for row in parsed_lines(path) if row is not None]


def parsed_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """A row for each line, None for one that is no JSON object with a step."""
    text = ""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError, lzma.LZMAError):
        text = read_log(path).decode(errors="replace")
    for line in text.removesuffix("\n").split("\n") if text else []:  # not splitlines: text may hold a U+2028
        row = None
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
        yield row if isinstance(row, dict) and type(row.get("step")) is int else None


def tail(path: Path, size: int) -> list[bytes]:
    """The whole lines among the last `size` bytes of a file, packed or not; none where it cannot be read."""
    text, skipped = b"", 0
    with contextlib.suppress(OSError, lzma.LZMAError):
        try:
            with path.open("rb") as file:
                skipped = file.seek(max(0, file.seek(0, 2) - size))
                text = file.read()
        except FileNotFoundError:
            text = read_log(path)
            skipped = max(0, len(text) - size)
            text = text[skipped:]
    return text.split(b"\n")[bool(skipped) : -1]  # what follows the last newline is being written


def read_log(path: Path) -> bytes:
    """A log as it was written, from `<name>.xz` where it was packed. Raises `OSError` where it is neither."""
    packed = path.with_name(f"{path.name}.xz")
    return lzma.decompress(packed.read_bytes()) if packed.is_file() and not path.is_file() else path.read_bytes()


def pack(path: Path) -> None:
    """Compresses the logs of a finished cell's directory, for a repository to keep, with `DIGITS` of each number.

    The rest of the digits is noise of the arithmetic, which no compression lessens: half of a packed log of metrics.
    """
    if not (path / "done.json").is_file():
        raise UserError(f"{path.parent.name}/{path.name} is not finished, and only what is finished is packed")
    for log in path.glob("*.jsonl"):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        _write(log, "\n".join(map(_shortened, lines)))
        compress(log)


def _shortened(line: str) -> str:
    """A log's line with `DIGITS` of each number; one that cannot be read stays as it is."""
    with contextlib.suppress(ValueError, RecursionError):
        row = json.loads(line, parse_float=lambda number: float(f"{float(number):.{DIGITS}g}"))
        return _line(row)[:-1] if isinstance(row, dict) else line
    return line


def compress(path: Path) -> Path:
    """Puts `<name>.xz` in a file's place, and returns its path; `read_log` reads either."""
    part, packed = path.with_name(f".{path.name}.part"), path.with_name(f"{path.name}.xz")
    part.write_bytes(lzma.compress(path.read_bytes(), filters=TEXT))
    replace(part, packed)
    path.unlink()
    return packed


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null says that there was no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
