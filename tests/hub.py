"""A Hub on the loopback interface, as much of it as downloads take, and data sets in the Hub's own layouts."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

SUBJECTS = {  # of EleutherAI/hendrycks_math, in its own order
    "algebra": "Algebra",
    "counting_and_probability": "Counting & Probability",
    "geometry": "Geometry",
    "intermediate_algebra": "Intermediate Algebra",
    "number_theory": "Number Theory",
    "prealgebra": "Prealgebra",
    "precalculus": "Precalculus",
}


def hendrycks(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Path:
    """A data set laid out as EleutherAI/hendrycks_math: a configuration a subject, Parquet, declared in its README."""
    card = ["---", "license: mit", "configs:"]
    for subject, mine in rows.items():
        (folder / subject).mkdir(parents=True)
        card += [f"- config_name: {subject}", "  data_files:"]
        for split, part in (("train", mine), ("test", mine[:1])):
            name = f"{subject}/{split}-00000-of-00001.parquet"
            columns = {key: [row[key] for row in part] for key in ("problem", "level", "type", "solution")}
            pq.write_table(pa.table(columns), folder / name)
            card += [f"  - split: {split}", f"    path: {subject}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", "# MATH"]) + "\n")
    return folder


def math_500(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A data set laid out as HuggingFaceH4/MATH-500: one `test.jsonl`, no configuration declared."""
    folder.mkdir(parents=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "test.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "README.md").write_text("---\ntask_categories:\n- text-generation\nlanguage:\n- en\n---\n# MATH-500\n")
    return folder


@contextmanager
def serve(root: Path):
    """Serves `root/{models,datasets}/<owner>/<name>/<revision>/…`, with `-` for a revision's `/`.

    Yields its address and the list of requests, which grows.
    """
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            asked.append(f"{self.command} {path}")
            api, *parts = path.strip("/").split("/")
            if api != "api":  # /owner/name/resolve/<commit>/file, behind /datasets for one
                parts = [api, *parts] if api == "datasets" else ["models", api, *parts]
            repository, what, revision = root.joinpath(*parts[:3]), parts[3], "/".join(parts[4:])
            found = [
                f for f in repository.glob("*") if f"{revision}/".startswith((f"{f.name}/".replace("-", "/"), _sha(f)))
            ]
            if not found:
                code = "RevisionNotFound" if repository.is_dir() else "RepoNotFound"
                return self._send(404, b"{}", {"X-Error-Code": code})
            folder = found[0]
            files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                about = {"id": "/".join(parts[1:3]), "sha": _sha(folder), "siblings": siblings, "tags": []}
                return self._send(200, json.dumps(about).encode())
            if what == "tree":
                tree = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": _sha(p)} for n, p in files.items()]
                return self._send(200, json.dumps(tree).encode())
            file = files.get(revision.removeprefix(f"{_sha(folder)}/"))
            if file is None:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self._send(200, file.read_bytes(), {"ETag": f'"{_sha(file)}"', "X-Repo-Commit": _sha(folder)})

        do_HEAD = do_GET

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()


def _sha(path: Path) -> str:
    return hashlib.sha1(str(path).encode()).hexdigest()
