"""Broken files, jumping clocks, full disks, planted secrets and pickles: a clear sentence each, and nothing is lost."""

import contextlib
import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fakes import lrd, lrd_here
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save_file

from lrd import ROOT, UserError, presets, results
from lrd.cell import Cell, grid
from lrd.checks.verification import TIMES
from lrd.presets import read_preset
from lrd.runs import directory, provenance as prov, redact
from lrd.runs.directory import Run, reason, state
from lrd.runs.files import read_json, read_jsonl
from lrd.runs.provenance import provenance
from lrd.train import checkpoint
from lrd.train.loop import train

SHORT = {"steps": 4, "eval_every": 2, "eval_problems": 5, "max_completion_tokens": 12, "logged_completions": 2}


@pytest.fixture(scope="module")
def whole(make_cell, tmp_path_factory) -> Path:
    """The directory of a cell that nothing happened to."""
    run = Run(make_cell(**SHORT), tmp_path_factory.mktemp("whole"))
    list(train(run))
    run.finish()
    return run.path


@pytest.fixture(scope="module")
def stopped(make_cell, tmp_path_factory) -> Path:
    """The directory of a cell that was stopped at step 3, its last checkpoint at step 2."""
    run = Run(make_cell(**SHORT), tmp_path_factory.mktemp("stopped"))
    for metrics in train(run):
        if metrics["step"] == 3:
            break
    run.close()
    return run.path


@pytest.fixture
def interrupted(stopped, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(stopped, tmp_path / "test" / stopped.name)


def finish(make_cell, path: Path, **changes) -> None:
    run = Run(make_cell(**SHORT | changes), path.parent.parent)
    list(train(run))
    run.finish()


def assert_same(path: Path, whole: Path) -> None:
    """Equal in all but times, weights bit by bit."""
    for name in ("evals.jsonl", "completions.jsonl", "adapter/adapter_model.safetensors"):
        assert (path / name).read_bytes() == (whole / name).read_bytes(), name
    rows = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_jsonl(p / "metrics.jsonl")]
        for p in (path, whole)
    ]
    assert rows[0] == rows[1]


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != "lock"}


# --- broken files


@pytest.mark.parametrize("garbage", [b"", b"{cut o", b"\xff\xfe\x00", b"[1]", b"null", b"[" * 200_000])
@pytest.mark.parametrize("name", ["config.json", "provenance.json", "done.json"])
def test_a_broken_record_is_named_and_left_as_it_is(make_cell, whole, tmp_path, name, garbage):
    path = tmp_path / "test" / whole.name
    shutil.copytree(whole, path)
    (path / name).write_bytes(garbage)
    before = contents(path)
    with pytest.raises(UserError, match=rf"{name} is not (readable JSON \(.*\)|a JSON object); move it away$"):
        Run(make_cell(**SHORT), tmp_path)
    assert contents(path) == before
    assert state(path) == ("failed" if name == "done.json" else "finished")
    assert (name in reason(path)) == (name == "done.json")
    (path / name).unlink()  # as it says
    Run(make_cell(**SHORT), tmp_path).close()


def test_a_cell_whose_done_file_broke_is_finished_again_without_a_step(make_cell, whole, tmp_path):
    path = tmp_path / "test" / whole.name
    shutil.copytree(whole, path)
    (path / "done.json").unlink()
    run = Run(make_cell(**SHORT), tmp_path)
    assert list(train(run)) == []
    run.finish()
    assert state(path) == "finished"
    assert_same(path, whole)


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": 3},
        {"run": {"models": []}},
        {"sessions": {}},
        {"sessions": [None]},
        {"sessions": "x"},
        {"code": []},
        {"code": {"x": 1}},
    ],
)
def test_a_provenance_that_no_run_wrote_is_named(make_cell, interrupted, wrong):
    (interrupted / "provenance.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"provenance\.json is not as a run writes it; move it away"):
        Run(make_cell(**SHORT), interrupted.parent.parent)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "metrics",
            lambda lines: lines[1:],
            r"jsonl is not whole at step 1, before the checkpoint \(step 2\)",
        ),
        ("metrics", lambda lines: lines[:1], r"metrics\.jsonl is not whole at step 2"),
        ("metrics", lambda lines: [], r"metrics\.jsonl is not whole at step 1"),
        ("metrics", lambda lines: lines[:2] + lines, r"metrics\.jsonl is not whole at step 1"),
        ("metrics", lambda lines: [lines[0], "\0\0\0\n", *lines[1:]], r"metrics\.jsonl: line 2 cannot be read"),
        ("metrics", lambda lines: [lines[0], "[" * 200_000 + "\n", *lines[1:]], r"line 2 cannot be read"),
        ("evals", lambda lines: lines[1:], r"evals\.jsonl is not whole at step 0"),
        ("completions", lambda lines: ["garbage\n", *lines], r"completions\.jsonl: line 1 cannot be read"),
    ],
)
def test_a_resume_that_would_leave_a_hole_is_refused(make_cell, interrupted, name, change, said):
    path = interrupted / f"{name}.jsonl"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    before = contents(interrupted)
    run = Run(make_cell(**SHORT), interrupted.parent.parent)
    with pytest.raises(UserError, match=said):
        list(train(run))
    assert contents(interrupted) == before
    assert state(interrupted) == "interrupted"


def test_lines_cut_after_the_checkpoint_are_trained_again(make_cell, interrupted, whole):
    for name in ("metrics", "completions"):
        path = interrupted / f"{name}.jsonl"
        path.write_bytes(path.read_bytes()[:-9])
    finish(make_cell, interrupted)
    assert_same(interrupted, whole)


def test_a_broken_checkpoint_is_named_and_left_as_it_is(make_cell, interrupted):
    path = interrupted / "checkpoint" / "state.safetensors"
    good = path.read_bytes()
    tensors = load_file(path)
    weight = next(name for name in tensors if name.startswith("weight/"))
    config = json.dumps(make_cell(**SHORT).config)
    without = {name: t for name, t in tensors.items() if name != weight}

    def saved(tensors, **changes):
        sums = json.dumps({name: checkpoint._sum(tensor) for name, tensor in tensors.items()})
        save_file(tensors, path, {"step": "2", "config": config, "sums": sums} | changes)
        return path.read_bytes()

    broken = [b"", b"garbage", good[:100], good[:-1], good + b"\0", pickle.dumps({"step": 2})]
    broken += [good[:-100] + bytes(4) + good[-96:], good[:-4096] + bytes(4096)]  # a bit of it lost, or a page
    broken += [saved(without), saved(without | {weight: torch.zeros(1)})]
    broken += [saved(tensors, step=step) for step in ("-1", "5", "two")]
    broken += [
        saved(tensors, config="{"),
        saved(tensors, sums="{}"),
        saved(tensors | {"optimizer/x/y": torch.zeros(1)}),
    ]
    save_file(tensors, path)
    broken.append(path.read_bytes())
    trainable = {n.removeprefix("weight/"): torch.nn.Parameter(tensors[n]) for n in tensors if n.startswith("weight/")}
    optimizer = torch.optim.AdamW(trainable.values())
    state = checkpoint.Checkpoint(path, make_cell(**SHORT).config, trainable, optimizer)
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"the checkpoint cannot be read \(.*\); move it away"):
            state.restore()
    before = contents(interrupted)
    with pytest.raises(UserError, match="the checkpoint cannot be read"):
        list(train(Run(make_cell(**SHORT), interrupted.parent.parent)))
    assert contents(interrupted) == before
    saved(tensors, config=json.dumps(make_cell(seed=1, **SHORT).config))
    with pytest.raises(UserError, match="the checkpoint is of another configuration; move it away"):
        state.restore()
    for content in (saved(tensors), good):
        path.write_bytes(content)
        assert state.restore() == 2


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.uint8, torch.int64])
def test_a_checksum_is_the_same_wherever_its_numbers_lie_and_another_for_other_bits(kind):
    for n in (1, 2, 3, 8, 1000):
        numbers = torch.arange(n + 1).to(kind)
        moved = numbers[1:]  # at an odd place of its storage
        assert checkpoint._sum(moved) == checkpoint._sum(moved.clone())
        assert checkpoint._sum(moved) != checkpoint._sum(moved * 2)
    assert checkpoint._sum(torch.tensor([[1, 2], [3, 4]])) == 10 and checkpoint._sum(torch.tensor(1.0)) == 0x3F800000


@given(content=st.binary(max_size=60), name=st.sampled_from(["done.json", "failed.json", "config.json", "lock"]))
def test_whatever_lies_in_a_directory_its_state_can_be_told(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any")
    (path / "lock").touch()
    (path / name).write_bytes(content)
    assert state(path) in ("absent", "interrupted", "failed", "finished")
    assert isinstance(reason(path), str)


def test_a_clock_that_jumps_makes_no_negative_duration(make_cell, tmp_path, monkeypatch):
    times = iter(["2030-01-01T00:00:00+00:00"] + ["2020-01-01T00:00:00+00:00"] * 9)
    monkeypatch.setattr(directory, "now", lambda: next(times))
    run = Run(make_cell(**SHORT), tmp_path)
    list(train(run))
    run.finish()
    session = read_json(run.path / "provenance.json")["sessions"][0]
    assert session["ended"] < session["started"]  # as the clock said, and beside it what really passed
    assert session["seconds"] >= 0 and session["cpu_seconds"] >= 0 and read_json(run.path / "done.json")["seconds"] > 0


# --- pickles


class Planted:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path(os.environ["PLANTED"]),))


def test_no_pickle_is_ever_opened(make_cell, interrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED", str(tmp_path / "trace"))
    planted = pickle.dumps(Planted())
    pickle.loads(planted)
    (tmp_path / "trace").unlink()  # it works
    names = [str(p.relative_to(interrupted)) for p in interrupted.rglob("*") if p.is_file() and p.name != "lock"]
    names += ["done.json", "failed.json", "adapter/adapter_model.bin", "checkpoint/state.pt", "checkpoint/optimizer.pt"]
    for name in names:
        kept = contents(interrupted)
        (interrupted / name).parent.mkdir(exist_ok=True)
        (interrupted / name).write_bytes(planted)
        with contextlib.suppress(UserError):
            run = Run(make_cell(**SHORT), interrupted.parent.parent)
            run.close()
            if name.startswith("checkpoint/"):
                list(train(run))
        state(interrupted), reason(interrupted), results.has_page(interrupted), results.read_run(interrupted)
        (interrupted / name).unlink()
        for old, content in kept.items():
            (interrupted / old).write_bytes(content)
    assert not (tmp_path / "trace").exists()


def test_no_line_of_the_library_can_unpickle():
    """Neither by name nor through a library whose loader would."""
    loaders = re.compile(
        r"\b(c?pickle|dill|joblib|shelve|marshal)\b|torch\.load\b|allow_pickle|read_pickle|weights_only"
        r"|trust_remote_code=True|use_safetensors=False"
    )
    sources = [*(ROOT / "lrd").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    found = [
        f"{path.name}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if loaders.search(line) and not line.endswith("No pickle.")
    ]
    assert found == []
    assert loaders.search("state = torch.load(path)") and loaders.search("import pickle")


# --- names


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "..", "", "a/b", "a\\b", "-rf", ".hidden", "a b", "a\nb", "é", "a" * 200]
)
def test_no_name_leaves_the_runs_directory(make_cell, tmp_path, monkeypatch, name):
    with pytest.raises(UserError, match="preset .* is no name"):
        make_cell(preset=name)
    with pytest.raises(UserError, match="unknown preset"):
        read_preset(name)
    if name and "/" not in name and len(name) < 200 and name != "..":  # such a file can be made
        monkeypatch.setattr(presets, "FOLDER", tmp_path)
        shutil.copy(ROOT / "lrd" / "presets" / "tiny.toml", tmp_path / f"{name}.toml")
        with pytest.raises(UserError, match="is no name|unknown preset"):
            grid(name)
    from lrd.testbed import recipe

    with pytest.raises(UserError, match="preset .* is no name"):
        recipe.load(name)


@pytest.mark.parametrize("axis", ["regime", "rank", "seed"])
@pytest.mark.parametrize("value", ["../x", "/x", "", "a/../../b"])
def test_no_axis_value_leaves_the_runs_directory(unchecked, axis, value):
    with pytest.raises(UserError, match=axis):
        grid("tiny", {axis: [value]})
    with pytest.raises(UserError, match=axis):
        Cell.load("tiny", **{"regime": "outcome", "rank": 1, "seed": 0} | {axis: value})


def test_no_value_of_a_further_axis_leaves_the_runs_directory(tmp_path, monkeypatch):
    folder = shutil.copytree(ROOT / "lrd" / "presets", tmp_path / "presets")
    monkeypatch.setattr(presets, "FOLDER", folder)
    text = (folder / "tiny.toml").read_text()
    (folder / "wide.toml").write_text(text.replace("[axes]", '[axes]\ntrain_data = ["../../x", "/x", "..", "a\\\\b"]'))
    for cell in grid("wide"):
        path = Run(cell, tmp_path / "runs", hold=False).path
        assert path.resolve().parent == (tmp_path / "runs" / "wide").resolve(), path


# --- secrets


def test_secrets_are_what_the_names_say_in_every_form_that_json_gives_them(monkeypatch):
    for name in list(os.environ):
        if redact.NAMES.fullmatch(name):
            monkeypatch.delenv(name)
    values = {
        "HF_TOKEN": "hf_abcdef",
        "wandb_api_key": 'quo"te\\é',
        "MY_PASSWORD_2": "hunter2",
        "AWS_SECRET_ID": "hf_abcdef_longer",
        "SSH_KEY": "-----BEGIN-----\nMIIEvQIBADAN\n",
        "SHORT_KEY": "abc",
        "HF_TOKEN_PATH": "path-is-no-secret",
        "MONKEY": "bananas",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert set(redact.secrets().values()) == {"HF_TOKEN", "wandb_api_key", "MY_PASSWORD_2", "AWS_SECRET_ID", "SSH_KEY"}
    text = json.dumps(values) + json.dumps(values, ensure_ascii=False) + 'quo"te\\é'
    clean = redact.redact(text)
    for word in ("hf_abcdef", "longer", "te\\", "hunter2", "MIIE", "BEGIN"):
        assert word in text and word not in clean, word
    assert "abc" in clean and "path-is-no-secret" in clean and "bananas" in clean
    assert "<AWS_SECRET_ID>" in clean and json.loads(redact.redact(json.dumps(values)))["HF_TOKEN"] == "<HF_TOKEN>"


def test_a_setting_that_holds_a_secret_is_refused_before_anything_is_written(make_cell, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_in_a_setting")
    with pytest.raises(UserError, match="setting 'train_data' .* holds a secret of the environment") as refused:
        Run(make_cell(train_data="https://user:hf_planted_in_a_setting@host/x"), tmp_path)
    assert "planted" not in str(refused.value) and not list(tmp_path.iterdir())


def test_no_secret_reaches_provenance_or_the_reason_of_a_failure(make_cell, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_token")
    monkeypatch.setenv("DB_PASSWORD", 'planted "pass\\word')
    monkeypatch.setattr("sys.argv", ["lrd", "--password=hf_planted_token"])
    real = prov.git
    monkeypatch.setattr(prov, "git", lambda *a, **k: "+hf_planted_token" if a[0] == "diff" else real(*a, **k))
    run = Run(make_cell(**SHORT), tmp_path)
    run.begin(step=None, about={"device": 'planted "pass\\word'})
    run.fail(RuntimeError("401 for hf_planted_token"), 1)
    run.close()
    assert read_json(run.path / "provenance.json")["git"]["diff"] == "+<HF_TOKEN>\n"
    assert reason(run.path) == "RuntimeError: 401 for <HF_TOKEN>"
    assert not [name for name, content in contents(run.path).items() if b"planted" in content]


def test_no_secret_reaches_a_notebook_or_what_lies_beside_it(as_options, tmp_path):
    """One that stands in the command line, in parameters, in an error and in its traceback."""
    secret = "hf_planted_0123"
    runs = tmp_path / f"of-{secret}"
    path = runs / "tiny" / "outcome-r4-s0"
    (path / "completions.jsonl" / "x").mkdir(parents=True)  # training fails, and the error names the path
    asked = ["cell", "tiny", "--regime", "outcome", "--rank", 4, "--seed", 0, *as_options, "--runs", runs]
    done = lrd(*asked, HF_TOKEN=secret)
    assert done.returncode == 1 and "failed (IsADirectoryError" in done.stdout
    notebook = (path / "cell.ipynb").read_text()
    assert "<HF_TOKEN>" in notebook and "IsADirectoryError" in notebook
    assert "<HF_TOKEN>" in reason(path)
    assert [name for name, content in contents(path).items() if secret.encode() in content] == []


# --- provenance


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A small repository in the place of the project's."""
    root = tmp_path / "clone"
    for folder in ("lrd", "notebooks", "runs"):
        (root / folder).mkdir(parents=True)
    (root / "lrd" / "known.py").write_text("old\n")
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(prov, "ROOT", root)
    return root


def test_the_diff_of_a_dirty_tree_rebuilds_it(clone, tmp_path):
    assert prov.changes() == {"diff": "", "untracked": {}}
    for setting in ("diff.noprefix true", "color.ui always", "diff.bin.textconv false", "core.quotePath true"):
        subprocess.run(["git", "-C", clone, "config", *setting.split()], check=True)
    odd = {"lrd/table.bin": bytes(range(256)), "lrd/crlf.py": b"x = 1\r\n", "lrd/\xe9 \xfb.py": b"y = 2\n"}
    for name, content in odd.items():
        (clone / name).write_bytes(content)
    (clone / "lrd" / "known.py").write_text("new\n")
    (clone / "lrd" / "a reward.py").write_text("def load(): ...\n")
    (clone / "notebooks" / "long.ipynb").write_text("x" * (prov.LONGEST + 1))
    (clone / "runs" / "metrics.jsonl").write_text("{}")
    (clone / "private.txt").write_text("not part of the code")
    index = (clone / ".git" / "index").read_bytes()
    changes = prov.changes()
    assert (clone / ".git" / "index").read_bytes() == index  # git's own state is untouched
    assert changes["untracked"] == {"notebooks/long.ipynb": prov.LONGEST + 1}
    assert "private" not in changes["diff"] and "metrics" not in changes["diff"]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", clone, copy], check=True)
    subprocess.run(["git", "-C", copy, "apply"], input=changes["diff"].encode(), check=True)
    assert {name: (copy / name).read_bytes() for name in odd} == odd
    assert (copy / "lrd" / "known.py").read_text() == "new\n"
    assert (copy / "lrd" / "a reward.py").read_text() == "def load(): ...\n"


def test_no_other_repository_is_taken_for_the_projects(clone, tmp_path, monkeypatch):
    ours = prov.git("rev-parse", "HEAD")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", clone, other], check=True)
    git = ["git", "-C", str(other), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another"], check=True)
    (clone / "lrd" / "known.py").write_text("new\n")
    changes = prov.changes()
    assert len(ours) == 40 and "+new" in changes["diff"]
    # What a git hook or a shell may have set.
    for name, value in {"DIR": other / ".git", "WORK_TREE": other, "INDEX_FILE": other / ".git/index"}.items():
        monkeypatch.setenv(f"GIT_{name}", str(value))
    assert prov.git("rev-parse", "HEAD") == ours and prov.changes() == changes
    # An export without a history of its own, inside of another repository.
    export = other / "export"
    shutil.copytree(clone, export, ignore=shutil.ignore_patterns(".git"))
    monkeypatch.setattr(prov, "ROOT", export)
    for name in ("DIR", "WORK_TREE", "INDEX_FILE"):
        assert prov.git("rev-parse", "HEAD") is None
        assert prov.changes() == {"diff": None, "untracked": {}}
        monkeypatch.delenv(f"GIT_{name}")
    assert prov.git("rev-parse", "HEAD") is None and prov.changes() == {
        "diff": None,
        "untracked": {},
    }


def test_a_worktree_is_a_repository_of_its_own(clone, tmp_path, monkeypatch):
    ours = prov.git("rev-parse", "HEAD")
    subprocess.run(["git", "-C", clone, "worktree", "add", "-q", tmp_path / "tree"], check=True)
    monkeypatch.setattr(prov, "ROOT", tmp_path / "tree")
    (tmp_path / "tree" / "lrd" / "known.py").write_text("new\n")
    assert prov.git("rev-parse", "HEAD") == ours and "+new" in prov.changes()["diff"]


def test_provenance_without_git_or_gpu_says_so(make_cell, monkeypatch):
    monkeypatch.setenv("PATH", "")
    about = provenance(make_cell())
    assert about["git"] == {"sha": None, "diff": None, "untracked": {}} and about["hardware"]["gpus"] == []


def test_gpus_are_named_as_their_driver_names_them(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 570.86'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert prov.gpus() == ["NVIDIA H100 80GB HBM3, 81559 MiB, 570.86"]


def test_records_that_a_resume_cuts_keep_their_digits_though_a_short_secret_has_them(
    make_cell, interrupted, whole, monkeypatch
):
    digits = str(read_jsonl(interrupted / "metrics.jsonl")[0]["entropy"])[:8]
    monkeypatch.setenv("DOOR_KEY", digits)
    assert digits in (interrupted / "metrics.jsonl").read_text() and "<DOOR_KEY>" in redact.redact(digits)
    finish(make_cell, interrupted)
    assert_same(interrupted, whole)


def test_problems_of_a_file_that_changed_are_refused(make_cell, tmp_path):
    data = tmp_path / "train.jsonl"
    data.write_text('{"problem": "1+1", "answer": "2"}\n')
    run = Run(make_cell(train_data=str(data)), tmp_path)
    run.begin(step=None, about={})
    run.close()
    data.write_text('{"problem": "1+1", "answer": "3"}\n')
    with pytest.raises(UserError, match="was trained with another train_data than lies in"):
        Run(make_cell(train_data=str(data)), tmp_path)


# --- full disks


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk of its own can be mounted by root only")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Takes the disk's room but for `leave` bytes."""
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    size = (disk / "filler").stat().st_size
    os.truncate(disk / "filler", size - leave)


@pytest.mark.parametrize(
    ("changes", "after", "leave", "at"),
    [
        ({"steps": 8, "eval_every": 4, "logged_completions": 0}, 4, 0, 'record("metrics"'),
        ({}, 1, 60_000, "checkpoint.save"),
        ({}, 4, 0, "policy.save"),
    ],
)
def test_a_full_disk_fails_the_cell_and_room_finishes_it(
    make_cell, small_disk, tmp_path, whole, changes, after, leave, at
):
    run = Run(make_cell(**SHORT | changes), small_disk)
    before = b""
    with pytest.raises(Exception, match="No space left on device"):
        for metrics in train(run):
            if metrics["step"] == after:
                before = run.checkpoint.read_bytes()
                fill(small_disk, leave)
    assert state(run.path) == "failed"
    assert "No space left on device" in reason(run.path)
    assert at in read_json(run.path / "failed.json")["traceback"]
    assert run.checkpoint.read_bytes() == before  # the previous one, and whole
    (small_disk / "filler").unlink()
    finish(make_cell, run.path, **changes)
    assert state(run.path) == "finished"
    if changes:
        whole = tmp_path / "test" / run.path.name
        finish(make_cell, whole, **changes)
    assert_same(run.path, whole)


@pytest.mark.slow
def test_a_cell_whose_disk_fills_up_says_so_and_a_relaunch_finishes_it(as_options, small_disk):
    asked = ["cell", "tiny", "--regime", "outcome", "--rank", 4, "--seed", 0, *as_options, "--runs", small_disk]
    fill(small_disk, 150_000)
    done = lrd_here(*asked)
    path = small_disk / "tiny" / "outcome-r4-s0"
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "outcome-r4-s0: failed (" in done.stdout and "No space left on device" in done.stdout
    assert state(path) == "failed" and "No space left on device" in reason(path)
    (small_disk / "filler").unlink()
    done = lrd_here(*asked)
    assert done.returncode == 0, done.stderr
    assert state(path) == "finished" and results.has_page(path)
