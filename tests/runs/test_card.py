"""The model card that a run leaves beside its weights, and the adapter in plain PEFT, outside of the library."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lrd import results
from lrd.cell import Cell
from lrd.models import loading
from lrd.models.policy import Policy
from lrd.runs.card import card
from lrd.runs.directory import Run
from lrd.train.loop import train

SHORT = {"steps": 2, "eval_every": 1, "eval_problems": 6, "max_completion_tokens": 8}
PLAIN = """
import sys, torch
from peft import AutoPeftModelForCausalLM

torch.save(AutoPeftModelForCausalLM.from_pretrained("adapter").eval()(torch.arange(5, 15)[None]).logits, "logits.pt")
assert not [name for name in sys.modules if name.split(".")[0] == "lrd"]
"""


def trained(cell: Cell, root) -> Run:
    run = Run(cell, root)
    list(train(run))
    run.finish()
    return run


def read(path) -> tuple[dict, dict[str, str]]:
    """A card's head, and the rows of its table."""
    _, head, text = (path / "README.md").read_text().split("---\n", 2)
    rows = dict(re.findall(r"(?m)^\| (.+?) \| (.+) \|$", text))
    assert "More Information Needed" not in text  # PEFT's own form
    return yaml.safe_load(head), rows


def test_its_numbers_are_those_of_the_run(make_cell, tmp_path):
    cell = make_cell(lora_alpha=16, **SHORT)
    run = trained(cell, tmp_path)
    log = run.path / "evals.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    right = {0: 1, 1: 2, 2: 5}  # a random model has none
    rows = [row | {"correct": i % 6 < right[row["step"]]} for i, row in enumerate(lines)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run.path / "done.json").unlink()
    again = Run(cell, tmp_path)
    again.finish()
    head, table = read(run.weights)
    assert head["library_name"] == "peft" and "base_model" not in head and "lora" in head["tags"]
    found = results.summary(*results.read_run(run.path))
    assert float(table["pass@1 before"]) == pytest.approx(found["base"], abs=5e-5) == pytest.approx(1 / 6, abs=5e-5)
    assert float(table["pass@1 after"]) == pytest.approx(found["final"], abs=5e-5) == pytest.approx(5 / 6, abs=5e-5)
    about = json.loads((run.path / "provenance.json").read_text())["run"]
    assert table["base model"] == f"`{cell.student}` ({about['models']['student']})"
    assert table["trained parameters"] == str(about["trainable_parameters"])
    assert table["rank"] == "4 (lora_alpha 16)" and table["learning rate"] == "0.01 (constant)"
    assert table["steps"] == "2, each of 4 × 4 completions" and table["preset"] == "`test`"
    assert f"peft {metadata.version('peft')}" in table["versions"] and f"torch {torch.__version__}" in table["versions"]


def test_full_fine_tuning_has_one_too_and_no_pass_at_1_without_gold_answers(make_cell, tmp_path):
    head, table = read(trained(make_cell(rank=None, learning_rate=1e-4, **SHORT), tmp_path).weights)
    assert head["library_name"] == "transformers" and table["rank"] == "full fine-tuning" and "lora" not in head["tags"]
    text = card(make_cell(), {"pass@1": float("nan"), "score": 0.25}, {"pass@1": float("nan"), "score": 0.5}, {})
    assert "pass@1" not in text and "| score before | 0.2500 |\n| score after | 0.5000 |" in text


def test_the_adapter_is_the_policy_in_plain_peft_outside_of_the_library(make_cell, tmp_path):
    cell = make_cell(rank=2, **SHORT)
    run = trained(cell, tmp_path / "runs")
    shutil.copytree(run.weights, tmp_path / "adapter")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", PLAIN], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saved = load_file(run.weights / "adapter_model.safetensors")
    state = load_file(run.checkpoint)
    assert len(saved) == len([name for name in state if name.startswith("weight/")])
    policy = Policy(cell, torch.device("cpu"))
    for name, p in policy.trainable.items():
        p.data.copy_(state[f"weight/{name}"])
    logits = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(logits, policy.model(torch.arange(5, 15)[None]).logits, atol=1e-4, rtol=0)
    with policy.model.disable_adapter():
        assert (logits - policy.model(torch.arange(5, 15)[None]).logits).abs().max() > 1e-3


def test_an_adapter_of_a_model_of_the_hub_names_it_by_its_id(make_cell, checkpoint, monkeypatch, tmp_path):
    """And not by the cache of this machine, where nobody else would find it."""
    monkeypatch.setattr(loading.hub, "model_folder", lambda name, role, weights: Path(checkpoint()))
    policy = Policy(make_cell(student="owner/name"), torch.device("cpu"))
    policy.save(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/name"
    text = card(policy.cell, {}, {}, {})
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == "owner/name"
