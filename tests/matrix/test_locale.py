"""A host whose locale is not UTF-8: files are UTF-8 all the same, and output survives a terminal without arrows.

The book of such a host is tests/report/test_book.py's.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fakes import write_run

from lrd import ROOT
from lrd.cell import Cell
from lrd.runs.directory import Run, state
from lrd.runs.files import read_json, read_jsonl


def lrd(environment: dict[str, str], *words) -> tuple[int, str, str]:
    """Exit status, output and errors, as a terminal of that locale shows them."""
    command = [sys.executable, "-m", "lrd", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=240)
    return done.returncode, done.stdout.decode("iso-8859-1"), done.stderr.decode("iso-8859-1")


def test_status_and_refusals_are_shown_with_what_the_terminal_has(latin, tmp_path):
    path = write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 15})
    (path / "done.json").unlink()
    (path / "failed.json").write_text(json.dumps({"error": "è → é"}, ensure_ascii=False), encoding="utf-8")
    status, out, err = lrd(latin, "status", "tiny", "--runs", tmp_path)
    assert (status, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("outcome-r1-s0")]
    assert line.endswith("è ? é") and "53 absent · 1 failed" in out
    status, out, err = lrd(latin, "status", "→")
    assert status == 2 and err.startswith("lrd: unknown preset") and err.count("\n") == 1
    assert lrd(latin, "matrix", "--help")[0] == 0


def test_a_cell_leaves_the_same_files(latin, as_options, tmp_path):
    template = "Prüfe → {problem}\n"
    asked = ["--regime", "process", "--rank", 1, "--seed", 0, *as_options]
    asked += ["--set", f"prompt_template={json.dumps(template)}", "--runs", tmp_path]  # escaped, as arguments are bytes
    status, out, err = lrd(latin, "cell", "tiny", *asked)
    assert status == 0, err
    path = tmp_path / "tiny" / "process-r1-s0"
    assert state(path) == "finished" and "pass@1" in out
    assert read_json(path / "config.json")["prompt_template"] == template
    assert "Prüfe → " in (path / "config.json").read_text(encoding="utf-8")
    assert "Prüfe → " in (path / "cell.ipynb").read_text(encoding="utf-8")
    assert len(read_jsonl(path / "metrics.jsonl")) == 2
    config = read_json(path / "config.json")
    cell = Cell.load(config.pop("preset"), **config)
    Run(cell, tmp_path).close()  # here, where the locale is another
    status, out, _ = lrd(latin, "cell", "tiny", *asked)
    assert status == 0 and "finished already on" in out


# --- in the sources


def unnamed(source: str) -> Iterator[int]:
    """Lines that read or write text in whatever encoding the host has."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        function, keywords = node.func, {k.arg: k.value for k in node.keywords}
        method = isinstance(function, ast.Attribute)
        name = function.attr if method else getattr(function, "id", "")
        owner = getattr(function.value, "id", "") if method else ""
        if name == "open" and owner != "os":
            args = node.args if method else node.args[1:]
            mode = keywords.get("mode", args[0] if args else ast.Constant("r"))
            if not (isinstance(mode, ast.Constant) and "b" in str(mode.value)):
                yield node.lineno
        elif (method and name in ("read_text", "write_text")) or {"text", "universal_newlines"} & keywords.keys():
            yield node.lineno


def test_every_text_is_opened_as_utf_8():
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in (ROOT / "lrd").rglob("*.py") for line in unnamed(read(path))
    ]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        code = ["".join(c["source"]) for c in json.loads(read(path))["cells"] if c["cell_type"] == "code"]
        lines = [line for text in code for line in text.splitlines() if not line.startswith("%")]
        found += [f"{path.name}: {lines[line - 1]}" for line in unnamed("\n".join(lines))]
    assert found == []


def test_an_unnamed_encoding_is_noticed():
    bad = ["open(p)", "p.open()", "p.open('w')", "open(p, 'a')", "p.read_text()", "p.write_text('x', errors='replace')"]
    bad += ["subprocess.run(['x'], text=True)", "open(p, mode=m)"]
    good = ["open(p, 'rb')", "p.open('wb')", "os.open(p, 0)", "p.open(encoding='utf-8')", "p.read_bytes()"]
    assert list(unnamed("\n".join(bad + good))) == list(range(1, len(bad) + 1))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
