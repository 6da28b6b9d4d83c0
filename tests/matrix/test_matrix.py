"""The matrix under real faults: what is killed, lost, stopped or started twice, and what it costs to drive."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from pathlib import Path

import filelock
import nbformat
import psutil
import pytest
import safetensors
import torch

from lrd import ROOT
from lrd.cell import Cell, grid
from lrd.checks.verification import TIMES
from lrd.matrix import execute, launch as driver, notebook
from lrd.matrix.execute import Outcome
from lrd.runs.directory import LAUNCH, LOCK, Run, describe, state
from lrd.runs.files import read_json, read_jsonl
from lrd.train.loop import train

WAIT = 400  # seconds, on a machine with much else to do


class Launches:
    """Starts `lrd` again and again; knows every process that ever came of it, by a mark in the environment."""

    def __init__(self, runs: Path, settings: dict):
        self.runs, self.mark, self.seen, self.log = runs, uuid.uuid4().hex, set(), runs / "log.txt"
        self.settings = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        runs.mkdir(exist_ok=True)

    def start(self, command: str, *words, **environment) -> subprocess.Popen:
        """`lrd COMMAND tiny WORDS`, in a process group of its own as a shell would start it."""
        return self.python(["-m", "lrd", command, "tiny", *words, *self.settings, "--runs", self.runs], **environment)

    def python(self, words: list, **environment) -> subprocess.Popen:
        # Ray waits long for a host that does not answer; a test need not.
        environment |= {"LRD_MARK": self.mark, "RAY_health_check_period_ms": "1000"}
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, *map(str, words)],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Those alive, or those whose command line has the word: `ipykernel_launcher`, `ray::_guarded`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LRD_MARK") == self.mark:
                    self.seen.add(process)
                    if word in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def kill_one(self, word: str, seconds: float = 30):
        """The last of them, once there is one; none if none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in self.processes(word)[-1:]:
                process.kill()
                return
            time.sleep(0.1)

    def assert_gone(self, seconds: float = 60):
        """Nothing runs on, no zombie is left and no lock is held."""
        until(lambda: not self.processes(), seconds, lambda: self.processes())
        until(lambda: not any(map(zombie, self.seen)), 20)  # the system's own reaper takes its time
        for name in (LOCK, LAUNCH):
            for path in self.runs.glob(f"tiny/*/{name}"):
                # A process that ends has no environment left, by which it would be found, before it closes its files.
                with filelock.FileLock(path).acquire(timeout=10):
                    pass

    def ends(self, launch: subprocess.Popen, status: int, seconds: float = WAIT):
        assert launch.wait(seconds) == status, self.log.read_text()[-5000:]


def zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return False


def until(true, seconds: float = WAIT, about=lambda: ""):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, about()
        time.sleep(0.1)


@pytest.fixture
def launches(tmp_path, settings):
    made = []

    def make(**changes) -> Launches:
        made.append(Launches(tmp_path / f"runs-{len(made)}", settings | changes))
        return made[-1]

    yield make
    for each in made:
        for process in each.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def trained(cells: list[Cell], runs: Path) -> Path:
    """The same cells trained here, undisturbed."""
    for cell in cells:
        run = Run(cell, runs)
        for _ in train(run):
            pass
        run.finish()
    return runs


def untimed(path: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_jsonl(path)]


def assert_same(one: Path, other: Path):
    """Bit by bit, but for the clock's readings."""
    assert state(one) == state(other) == "finished"
    assert untimed(one / "metrics.jsonl") == untimed(other / "metrics.jsonl")
    for name in ("evals.jsonl", "completions.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    weights = [
        sorted([*path.glob("adapter/*.safetensors"), *path.glob("model/*.safetensors")]) for path in (one, other)
    ]
    assert weights[0] and [w.read_bytes() for w in weights[0]] == [w.read_bytes() for w in weights[1]]


def steps(path: Path) -> int:
    return max((row["step"] for row in read_jsonl(path / "metrics.jsonl")), default=0)


def saved_step(path: Path) -> int:
    path = path / "checkpoint" / "state.safetensors"
    if not path.is_file():
        return 0
    with safetensors.safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def text_of(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(o.text for c in cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_workers_and_drivers_are_killed_20_times_over_and_nothing_is_lost(launches, settings, tmp_path):
    """Which process dies is fixed, and when: soon after the last, or, each second time, some steps further on."""
    rng = random.Random(0)
    length = {"steps": 30, "eval_every": 3, "prompts_per_step": 2, "samples_per_prompt": 2}
    launch = launches(**length)
    axes = {"regime": ["outcome", "process", "distillation"], "rank": [4, "full"], "seed": [0]}
    words = ["--regimes", *axes["regime"], "--ranks", *axes["rank"], "--seeds", 0, "--jobs", 2]
    cells = grid("tiny", axes, **settings | length)
    paths = [launch.runs / "tiny" / cell.name for cell in cells]
    victims = ["driver"] * 4 + ["ipykernel_launcher"] * 8 + ["ray::_guarded"] * 8
    rng.shuffle(victims)
    seen: list[dict[Path, tuple[int, int]]] = []  # after each kill: sessions so far and the step saved last

    driver = launch.start("matrix", *words)
    for number, victim in enumerate(victims):
        if all(state(path) == "finished" for path in paths):  # a fast machine
            break
        ahead = sum(map(steps, paths)) + rng.randint(1, 8)
        time.sleep(rng.uniform(0.2, 2))
        with contextlib.suppress(AssertionError):
            until(lambda n=number, t=ahead: n % 2 or sum(map(steps, paths)) >= t, 60)
        if driver.poll() is not None:  # a cell was lost more often than one launch retries
            driver = launch.start("matrix", *words)
        launch.processes()
        if victim == "driver":
            driver.kill()
            driver.wait()
        else:
            launch.kill_one(victim)
        seen.append(
            {path: (len(Run(c, launch.runs, hold=False).sessions), saved_step(path)) for c, path in zip(cells, paths)}
        )
        if victim == "driver":
            driver = launch.start("matrix", *words)  # a plain relaunch, while its orphans are still dying
    driver.wait(WAIT)
    launch.ends(launch.start("matrix", *words), 0)
    launch.assert_gone()

    whole = trained(cells, tmp_path / "whole")
    for cell, path in zip(cells, paths):
        assert_same(path, whole / "tiny" / cell.name)
        starts = [session["from_step"] for session in Run(cell, launch.runs, hold=False).sessions]
        for counts in seen:
            sessions, saved = counts[path]
            assert all(start >= saved for start in starts[sessions:]), (cell.name, starts, saved)
        shown = text_of(path / "cell.ipynb")
        assert all(f"resumed after step {start}, " in shown for start in starts[1:]), (starts, shown)
        assert read_json(path / "done.json")["steps"] == 30
    resumed = [session["from_step"] for c in cells for session in Run(c, launch.runs, hold=False).sessions[1:]]
    print(len(seen), "kills; resumed after steps", resumed)
    assert len(seen) >= 12 and len(resumed) >= 3 and any(resumed)  # it was no idle exercise


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_saves_and_stops_and_twice_stops_at_once(launches):
    launch = launches(steps=5000, eval_every=2500)
    words = ["--regimes", "outcome", "distillation", "--ranks", 4, "--seeds", 0, "--jobs", 2]
    paths = [launch.runs / "tiny" / name for name in ("outcome-r4-s0", "distillation-r4-s0")]

    driver = launch.start("matrix", *words)
    until(lambda: all(steps(path) >= 3 for path in paths))
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    launch.ends(driver, 130, 60)
    launch.assert_gone()
    stopped = [steps(path) for path in paths]
    assert [saved_step(path) for path in paths] == stopped
    assert [state(path) for path in paths] == ["interrupted"] * 2
    assert "interrupted; the same command goes on from here" in launch.log.read_text()
    assert "Traceback" not in launch.log.read_text()

    driver = launch.start("matrix", *words)
    until(lambda: all(steps(path) >= before + 3 for path, before in zip(paths, stopped)))
    os.killpg(driver.pid, signal.SIGINT)
    time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGINT)
    launch.ends(driver, 130, 60)
    launch.assert_gone()

    for path, step in zip(paths, stopped):
        starts = [session["from_step"] for session in read_json(path / "provenance.json")["sessions"]]
        assert starts == [0, step]
        assert saved_step(path) in (step, steps(path))  # at once, unless the step was just over
        assert state(path) == "interrupted"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_cell_stops_on_sigterm_and_its_kernel_does_not_outlive_it(launches):
    launch = launches(steps=2000, eval_every=1000)
    words = ["--regime", "outcome", "--rank", "full", "--seed", 0]
    path = launch.runs / "tiny" / "outcome-full-s0"
    one = launch.start("cell", *words)
    until(lambda: steps(path) >= 3)
    one.send_signal(signal.SIGTERM)
    launch.ends(one, 130, 60)
    launch.assert_gone()
    assert saved_step(path) == steps(path) > 0

    one = launch.start("cell", *words)
    until(lambda: steps(path) > saved_step(path))
    one.kill()
    one.wait()
    launch.assert_gone(20)  # ipykernel looks for its parent once a second
    assert state(path) == "interrupted"


def test_what_is_lost_is_started_again_and_what_fails_is_not(settings, tmp_path, monkeypatch):
    """The driver's own decisions, the outcomes of its tasks being given."""
    cells = grid("tiny", {"rank": [1, 4], "seed": [0]}, **settings)
    script = {
        cells[0].name: ["finished"],
        cells[1].name: ["failed"],
        cells[2].name: ["interrupted", "absent", "finished"],  # lost twice
        cells[3].name: ["interrupted"] * 9,  # for good
        cells[4].name: ["running", "finished"],  # another launch has it, and loses it
        cells[5].name: ["running"],  # another launch has it, and it fails there
    }
    run = Run(cells[5], tmp_path)
    run.fail(ZeroDivisionError("of all things"), step=1)
    run.close()
    started: list[str] = []

    def start(cell):
        assert len(started) - len(ended) < 2  # `jobs` at a time
        started.append(cell.name)
        return cell.name, started.count(cell.name)

    ended: list[str] = []

    def outcome(future, path):
        name, times = future
        ended.append(name)
        return Outcome(script[name][times - 1], "why")

    monkeypatch.setattr(driver, "_ready", lambda pending: list(pending)[:1])
    monkeypatch.setattr(driver, "_outcome", outcome)
    outcomes, stopped = driver._drive(start, cells, 2, str(tmp_path))
    assert not stopped
    assert {name: o.state for name, o in outcomes.items()} == dict(
        zip((cell.name for cell in cells), ["finished", "failed", "finished", "interrupted", "finished", "failed"])
    )
    assert outcomes[cells[5].name].reason == "ZeroDivisionError: of all things"
    assert [started.count(cell.name) for cell in cells] == [1, 1, 3, 1 + driver.RETRIES, 2, 1]


def test_what_finds_memory_full_waits_for_another_to_end_and_fewer_run_from_then_on(settings, tmp_path, monkeypatch):
    cells = grid("tiny", {"rank": [1, 4], "seed": [0]}, **settings)
    full = [describe(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")), "x needs about 9 GiB (…)"]
    script = {cell.name: [("finished", "")] for cell in cells}
    script[cells[0].name] = [("failed", full[0]), ("failed", full[1]), ("finished", "")]
    script[cells[5].name] = [("failed", full[0])] * 2  # too large for the card even alone
    running, most = [], []

    def start(cell):
        running.append(cell.name)
        most.append(len(running))
        return cell.name, [*script].index(cell.name), len(most)

    def outcome(future, path):
        running.remove(future[0])
        return Outcome(*script[future[0]].pop(0))

    monkeypatch.setattr(driver, "_ready", lambda pending: list(pending)[:1])
    monkeypatch.setattr(driver, "_outcome", outcome)
    outcomes, _ = driver._drive(start, cells, 3, str(tmp_path))
    assert [outcomes[cell.name].state for cell in cells] == ["finished"] * 5 + ["failed"]
    assert most[:3] == [1, 2, 3] and max(most[3:]) == 2 and most[-1] == 1


def test_a_kernel_orphaned_before_it_was_up_ends_by_itself(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", str(tmp_path / "kernel.json"), notebook.TETHER]
    kernel = subprocess.Popen(command, env=os.environ | {"JPY_PARENT_PID": str(gone.pid)}, stderr=subprocess.DEVNULL)
    assert kernel.wait(60) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_host_is_lost_and_its_cells_finish_on_another(launches, settings, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    length = {"steps": 40, "eval_every": 5}
    launch = launches(**length)
    axes = {"regime": ["outcome", "distillation"], "rank": [4, "full"], "seed": [0]}
    cells = grid("tiny", axes, **settings | length)
    paths = [launch.runs / "tiny" / cell.name for cell in cells]
    for key, value in {"LRD_MARK": launch.mark, "RAY_health_check_period_ms": "1000"}.items():
        monkeypatch.setenv(key, value)  # for the cluster's own processes
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        hosts = [cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20) for _ in range(2)]
        words = ["--regimes", *axes["regime"], "--ranks", *axes["rank"], "--seeds", 0, "--address", cluster.address]
        driver = launch.start("matrix", *words)
        until(lambda: sum(saved_step(path) >= 5 for path in paths) >= 2 or driver.poll() is not None)
        finished = {p: (p / "metrics.jsonl").stat().st_mtime_ns for p in paths if state(p) == "finished"}
        saved = {path: saved_step(path) for path in paths}
        cluster.remove_node(hosts[1], allow_graceful=False)
        launch.ends(driver, 0)
        assert all((path / "metrics.jsonl").stat().st_mtime_ns == stamp for path, stamp in finished.items())
    finally:
        cluster.shutdown()
    whole = trained(cells, tmp_path / "whole")
    sessions = {path: read_json(path / "provenance.json")["sessions"] for path in paths}
    assert any(len(each) > 1 for each in sessions.values())  # one was under way on the lost host
    for cell, path in zip(cells, paths):
        assert_same(path, whole / "tiny" / cell.name)
        assert all(session["from_step"] >= saved[path] for session in sessions[path][1:])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_launches_share_the_work(launches):
    launch = launches()
    words = ["--regimes", "outcome", "process", "distillation", "--ranks", 1, "--seeds", 0, "--jobs", 1]
    both = [launch.start("matrix", *words) for _ in range(2)]
    for one in both:
        launch.ends(one, 0)
    launch.assert_gone()
    for cell in grid("tiny", {"rank": [1], "seed": [0]}):
        path = launch.runs / "tiny" / cell.name
        assert state(path) == "finished"
        assert len(read_json(path / "provenance.json")["sessions"]) == 1
        assert text_of(path / "cell.ipynb").count("trained to step 2") == 1


# A driver whose cells take no time: everything is real but the notebook.
SIMULATED = textwrap.dedent(
    """
    import json, os, sys, time, psutil
    from pathlib import Path
    from lrd.matrix import launch
    from lrd.matrix.execute import Outcome
    from lrd.runs.directory import Held, Run

    def simulated(cell, overrides, runs, other_code, called):
        run = Run(cell, runs, hold=False)
        try:
            with run.launching():
                run.hold()
                if not run.finished:
                    with (Path(runs) / "trained.txt").open("a") as log:
                        log.write(cell.name + "\\n")
                    time.sleep(float(os.environ["SECONDS_A_CELL"]))
                    (run.path / "done.json").write_text("{}")
                run.close()
        except Held:
            return Outcome("running")
        return Outcome("finished")

    launch._guarded = simulated
    for seeds in json.loads(sys.argv[1]):
        start, cpu = time.monotonic(), time.process_time()
        status = launch.run("tiny", {"seed": list(range(seeds))}, json.loads(sys.argv[3]), jobs=2, runs=sys.argv[2])
        about = {"status": status, "wall": time.monotonic() - start, "cpu": time.process_time() - cpu}
        print("DRIVER", json.dumps(about | {"mib": psutil.Process().memory_info().rss / 2**20}), flush=True)
    """
)


def driven(launch: Launches) -> list[dict]:
    lines = launch.log.read_text().splitlines()
    return [json.loads(line.removeprefix("DRIVER ")) for line in lines if line.startswith("DRIVER ")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_launches_train_each_of_54_cells_once(launches, settings):
    launch = launches()
    words = ["-c", SIMULATED, "[3]", launch.runs, json.dumps(settings)]
    both = [launch.python(words, SECONDS_A_CELL="0.2") for _ in range(2)]
    for one in both:
        launch.ends(one, 0)
    counts = Counter((launch.runs / "trained.txt").read_text().split())
    assert counts == Counter(cell.name for cell in grid("tiny"))
    assert [about["status"] for about in driven(launch)] == [0, 0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_driving_54_trivial_cells_costs_little_and_1000_no_more_memory(launches, settings):
    launch = launches()
    words = ["-c", SIMULATED, "[3, 56]", launch.runs, json.dumps(settings)]  # 54 cells, then 1008
    launch.ends(launch.python(words, SECONDS_A_CELL="0"), 0, 500)
    few, many = driven(launch)
    print(few, many)
    assert few["status"] == many["status"] == 0
    assert len((launch.runs / "trained.txt").read_text().split()) == 1008
    assert few["wall"] / 54 <= 2
    assert few["cpu"] / 54 <= 0.5 and many["cpu"] / 954 <= 0.5
    assert many["mib"] - few["mib"] <= 25


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kernel_killed_for_want_of_memory_is_named(launches):
    """The kernel alone is in a memory cgroup, where this host lets us make one."""
    group = Path("/sys/fs/cgroup/memory") / f"lrd-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(100 * 2**20))
    except OSError:
        pytest.skip("no memory cgroup can be made here")
    launch = launches()
    try:
        one = launch.start("cell", "--regime", "outcome", "--rank", 1, "--seed", 0)
        until(lambda: launch.processes("ipykernel_launcher"))
        (group / "cgroup.procs").write_text(str(launch.processes("ipykernel_launcher")[0].pid))
        launch.ends(one, 1)
        launch.assert_gone()
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
    reason = read_json(launch.runs / "tiny" / "outcome-r1-s0" / "failed.json")["error"]
    assert reason.startswith("out of memory: take a host with more, run fewer cells at a time")
    assert reason in launch.log.read_text()


@pytest.mark.slow
def test_a_notebook_that_was_cut_off_is_shown_again_though_its_cell_is_finished(settings, tmp_path):
    cell = Cell.load("tiny", regime="outcome", rank=1, seed=0, **settings)
    trained([cell], tmp_path)
    path = tmp_path / "tiny" / cell.name
    assert execute.run_cell(cell, settings, str(tmp_path))[1].startswith("finished already on ")
    assert not (path / "cell.ipynb").exists()  # it was trained elsewhere: nothing to mend
    metrics = (path / "metrics.jsonl").read_bytes()
    (path / "cell.ipynb").write_text('{"cells": [')
    assert execute.run_cell(cell, settings, str(tmp_path)) == ("finished", "", "")
    assert "finished before" in text_of(path / "cell.ipynb")
    assert metrics == (path / "metrics.jsonl").read_bytes()
    stamp = (path / "cell.ipynb").stat().st_mtime_ns
    assert execute.run_cell(cell, settings, str(tmp_path))[1].startswith("finished already on ")
    assert (path / "cell.ipynb").stat().st_mtime_ns == stamp
