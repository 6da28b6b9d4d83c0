"""The Ray that cells run on: one of this machine's own, or a cluster that runs already."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from lrd import UserError
from lrd.runs.directory import describe

FOLDER = 30  # letters of a directory below which Ray's sockets still have paths of at most 107
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
STARTS = 3  # Ray gives its own processes 15 s to start, which a busy machine may exceed


@contextlib.contextmanager
def started(preset: str, address: str | None, jobs: int, needs: dict[str, float]) -> Iterator[None]:
    """Joins the cluster at `address`, or starts one on this machine for `jobs` cells of `needs`; leaves it afterwards.

    Raises `UserError` where there is none, or where this machine has too few `cpus` or `gpus` for a cell.
    """
    import ray

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cells side by side: threads of one would slow down the other
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address:
            _join(address)
        else:
            _start_here(int(jobs * needs["cpus"]))
        _check_room(preset, needs, address)
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    import ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit() and not os.environ.get("RAY_USE_TLS"):  # Ray itself tries for minutes
            _greet(host, int(port))
        with _stderr_kept():
            ray.init(address, **QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({describe(error)}); `ray start --head` starts one and says "
            f"where, RAY_AUTH_MODE and the token have to be its own, and without --address and RAY_ADDRESS cells "
            f"run on this machine"
        ) from None


def _start_here(cpus: int) -> None:
    import ray

    own: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    if len(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) > FOLDER:
        own["_temp_dir"] = "/tmp/ray"
    for left in reversed(range(STARTS)):
        try:
            ray.init("local", **own, **QUIET)
            return
        except Exception as error:  # Ray's own are of no kind
            ray.shutdown()
            if not left:
                raise UserError(f"Ray does not start on this machine: {describe(error)}") from error


def _greet(host: str, port: int) -> None:
    """Raises `OSError` where nothing that speaks HTTP/2, as Ray's gRPC does, answers within seconds."""
    with socket.create_connection((host, port), timeout=10) as one:
        one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))  # RFC 9113, §3.4
        if one.recv(9)[3:4] != b"\x04":  # SETTINGS
            raise ConnectionError("what listens there is not Ray")


@contextlib.contextmanager
def _stderr_kept() -> Iterator[None]:
    """What C++ writes to standard error is shown where the block does not raise: its error says the same in a line."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
            kept.seek(0)
            os.write(shown, kept.read())
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _check_room(preset: str, needs: dict[str, float], address: str | None) -> None:
    """Ray waits for ever for a host that can take a cell, with `cpus` and `gpus`; on a cluster, one may be on its way.

    Raises `UserError` where this machine alone is asked and has too few.
    """
    import ray

    hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(host.get("CPU", 0) >= needs["cpus"] and host.get("GPU", 0) >= needs["gpus"] for host in hosts):
        return
    takes = f"a cell of preset {preset!r} takes {needs['gpus']:g} GPU and {needs['cpus']:g} CPU"
    if not address:
        raise UserError(
            f"{takes} ([resources] in lrd/presets/{preset}.toml, or --gpus-per-cell), and Ray finds too few here; "
            f"run it on a GPU host"
        )
    print(f"{takes}, and no host of the cluster has them: waiting for one that does", file=sys.stderr, flush=True)
