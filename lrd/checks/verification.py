"""Checks of the machinery whose results the book shows: `python -m lrd.checks.verification` records them anew.

What cannot be computed while the book is built is recorded in `runs/published/verification.json.xz`: the loss against
TRL's trainer (TRL is installed for tests only), the verifier on MATH-500 (which is not part of the repository), cells
run twice, the forward pass that is left out, and how far weights move at either precision.
Nothing of the record should depend on the machine: a test records again and compares.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from math_verify import parse
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config

from lrd import ROOT, UserError, grpo, verifier
from lrd.analysis.verification import RECORD, grading_pairs, recorded
from lrd.cell import Cell
from lrd.checks.bench import PARTS
from lrd.data import problems
from lrd.models.loading import device
from lrd.models.policy import Policy
from lrd.runs import published
from lrd.runs.directory import Run
from lrd.runs.files import read_jsonl
from lrd.sampling.torch import TorchSampler
from lrd.testbed.corpus import tokenizer as corpus_tokenizer
from lrd.train import loop

MATH500 = ROOT.parent / "shared" / "data" / "math500.jsonl"
BATCHES = 20  # of random advantages a kind of aggregation; k3 summed in another order would differ in one of ten
TIMES = ("step_time", *(f"time/{part}" for part in PARTS))  # of wall clocks
RECORDED = ("verifier", "grading", "loss", "twice", "forward", "precision")
WEIGHT_STD = 0.02  # what Qwen3's weights are drawn with (`initializer_range` of its config.json)


def check_verifier(math500: Path = MATH500) -> dict[str, Any]:
    """MATH-500's reference solutions, graded against their own gold answers: ids only, none of its text.

    `bare_lost`: graded as the original did, with the bare gold string. `bare_unparsed`: those whose gold answer alone
    parses to nothing. `boxed_lost`: graded as we do. `next_paid`: solutions that verify against the next problem's
    answer as we grade, of `next_pairs` whose answers are different strings.
    """
    if not math500.is_file():
        raise UserError(f"{math500.name} is not at hand; give its place with --math500 FILE")
    text = math500.read_bytes()
    rows = [json.loads(line) for line in text.decode().splitlines()]

    def lost(gold: str) -> list[str]:
        return [r["id"] for r in rows if not verifier.is_correct(r["solution"], r["answer"], gold)]

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its timeout is off: these are short
    with contextlib.redirect_stdout(io.StringIO()):  # antlr prints
        unparsed = [r["id"] for r in rows if not parse(r["answer"], parsing_timeout=0)]
    pairs = [(a, b) for a, b in zip(rows, rows[1:] + rows[:1]) if a["answer"] != b["answer"]]
    return {
        "sha256": hashlib.sha256(text).hexdigest(),
        "math_verify": metadata.version("math-verify"),
        "problems": len(rows),
        "bare_lost": lost("bare"),
        "bare_unparsed": unparsed,
        "boxed_lost": lost("boxed"),
        "next_pairs": len(pairs),
        "next_paid": [[a["id"], b["id"]] for a, b in pairs if verifier.is_correct(a["solution"], b["answer"])],
    }


def check_grading() -> dict[str, Any]:
    """Our pairs, graded as we do and by math-verify alone, which gets both in a box.

    By kind and verdict that is due: how many pairs there are, and how many get it from us and from math-verify.
    """
    counts: dict[str, dict[str, list[int]]] = {}
    for pair in grading_pairs():
        due, box = pair.verdict == "right", rf"\boxed{{{pair.box}}}"
        ours = verifier.is_correct(box, pair.gold) == due
        theirs = verifier.is_correct(box, rf"\boxed{{{pair.gold}}}", gold="bare") == due
        row = counts.setdefault(pair.kind, {"right": [0, 0, 0], "wrong": [0, 0, 0]})[pair.verdict]
        row[:] = [n + more for n, more in zip(row, (1, ours, theirs))]
    return {"math_verify": metadata.version("math-verify"), "kinds": counts}


def check_loss(student: str, batches: int = BATCHES) -> dict[str, Any]:
    """Our loss and its gradients against TRL's own `GRPOTrainer`: the largest absolute difference, by aggregation.

    `clipped` is the smallest share of clipped tokens. `other_estimator` is the smallest difference with the report's
    KL estimator in place of TRL's: that the comparison can tell.
    """
    from lrd.checks import trl  # which is installed for tests only

    trainer, found = trl.loss_trainer(student), {}
    for aggregation, theirs in trl.LOSS_TYPES.items():
        gaps = [trl.loss_gap(trainer, aggregation, "k3", seed) for seed in range(batches)]
        found[aggregation] = {
            "loss_type": theirs,
            "loss": max(gap.loss for gap in gaps),
            "gradient": max(gap.gradient for gap in gaps),
            "clipped": round(min(gap.clipped for gap in gaps), 3),
        }
    other = min(trl.loss_gap(trainer, "token", "paper", seed).loss for seed in range(batches))
    version = metadata.version("trl")
    return {"trl": version, "batches": batches, "aggregations": found, "other_estimator": round(other, 4)}


def check_twice(student: str, teacher: str, prm: str, steps: int = 3) -> dict[str, Any]:
    """A short cell of each regime and kind of arm, run twice in directories of their own: which records differ.

    Compared are all rows of metrics (less wall times), evaluations and logged completions, and the weights' bytes.
    """
    found = []
    for regime in ("outcome", "process", "distillation"):
        for rank in (4, None):
            cell = _cell((student, teacher, prm), regime=regime, rank=rank, steps=steps, learning_rate=1e-2)
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                one, two = _finish(cell, Path(first)), _finish(cell, Path(second))
            differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
            found.append({"regime": regime, "arm": cell.arm, "records": len(one), "differing": differing})
    return {"steps": steps, "cells": found}


def check_forward(student: str, teacher: str, prm: str) -> dict[str, Any]:
    """A third forward pass, as the original takes log π_old from, against the learner's own detached log π_θ.

    For each kind of arm the largest absolute difference of any valid token's log-probability, and of any gradient of
    the loss with the one or the other as log π_old; `moved` is the largest difference after one update, where the two
    are different things: that the comparison can tell.
    """
    cells = [_cell((student, teacher, prm), rank=rank, learning_rate=1e-2) for rank in (4, None)]
    return {"arms": [{"arm": cell.arm} | _third_pass(cell) for cell in cells]}


def _third_pass(cell: Cell) -> dict[str, float]:
    policy = Policy(cell, device())
    sampler = TorchSampler(policy.base, policy.tokenizer)
    sampler.sync(policy.weights())
    batch = loop.sample(policy, sampler, problems.train_pool(cell.train_data)[0], 1)
    mask, ref = batch.completion_mask.to(policy.device), policy.reference_logps(batch)
    advantages = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)).to(mask.device) * mask
    learner = policy.logps(batch).logps
    with torch.no_grad():
        third = policy.logps(batch).logps
    gradients = []
    for old in (learner.detach(), third):
        loss, _ = grpo.loss(
            learner, old, ref, advantages, mask, clip_epsilon=cell.clip_epsilon, kl_coef=cell.kl_coef,
            kl_estimator=cell.kl_estimator, aggregation="token", max_tokens=cell.max_completion_tokens,
        )  # fmt: skip
        gradients.append(torch.autograd.grad(loss, list(policy.trainable.values()), retain_graph=True))
    for p, g in zip(policy.trainable.values(), gradients[0]):
        p.data -= cell.learning_rate * g.sign()
    with torch.no_grad():
        moved = policy.logps(batch).logps
    return {
        "logps": _largest([learner], [third], mask),
        "gradients": _largest(*gradients),
        "moved": round(_largest([learner], [moved], mask), 3),
    }


def _largest(one: Sequence[Any], other: Sequence[Any], mask: Any = ...) -> float:
    """The largest absolute difference between two lists of tensors, of each where the mask is set."""
    return max((a - b)[mask].abs().max().item() for a, b in zip(one, other))


def check_precision(student: str, teacher: str, learning_rate: float, steps: int = 100) -> dict[str, Any]:
    """Full fine-tuning by distillation with trained weights in bf16, as the original has them, and in fp32.

    For each precision, after the first update and after all: the share of matrix weights that differ from where they
    began, and the root mean square of their change in units of the learning rate. Distillation, because it alone has a
    gradient on every token whatever the student can do. `std` is the standard deviation of these weights.
    """
    found = []
    for dtype in ("bfloat16", "float32"):
        for n in (1, steps):
            cell = _cell((student, teacher, student), rank=None, steps=n, learning_rate=learning_rate,
                         master_dtype=dtype, eval_every=n)  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                run = _trained(cell, Path(folder))
                change = _matrices(run.weights, dtype) - _matrices(Path(student), dtype)
            found.append(
                {
                    "master_dtype": dtype,
                    "updates": n,
                    "moved": round((change != 0).double().mean().item(), 3),
                    "distance": round(change.square().mean().sqrt().item() / learning_rate, 2),
                }
            )
    std = round(_matrices(Path(student), "float32").std().item(), 3)
    return {"learning_rate": learning_rate, "std": std, "runs": found}


def _matrices(folder: Path, dtype: str) -> Any:
    """All matrix weights of a checkpoint in a row, rounded to `dtype`, as doubles."""
    weights = load_file(folder / "model.safetensors").values()
    return torch.cat([w.to(getattr(torch, dtype)).double().flatten() for w in weights if w.ndim > 1])


def _cell(models: Sequence[str], regime: str = "distillation", **settings: Any) -> Cell:
    """A short cell of random models: student, teacher, PRM."""
    student, teacher, prm = models
    return Cell(
        **{
            "preset": "test", "regime": regime, "seed": 0, "student": student, "teacher": teacher, "prm": prm,
            "train_data": "chain", "eval_data": "chain", "eval_problems": 5, "max_completion_tokens": 12,
            "eval_every": 3, "logged_completions": 2,
        } | settings
    )  # fmt: skip


def _finish(cell: Cell, runs: Path) -> dict[str, Any]:
    """A cell trained in `runs`, as what it left: file → its rows without times, or its bytes' hash."""
    run = _trained(cell, runs)
    left: dict[str, Any] = {}
    for path in run.path.glob("*.jsonl"):
        left[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in read_jsonl(path)]
    for path in run.weights.glob("*.safetensors"):
        left[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return left


def _trained(cell: Cell, runs: Path) -> Run:
    run = Run(cell, runs)
    for _ in loop.train(run):
        pass
    run.finish()
    return run


@contextlib.contextmanager
def random_models(std: float = 0.15):
    """Directories of three random two-layer models with the testbed's tokenizer: student, teacher, PRM.

    `std` is that of their matrices' weights.
    """
    tokenizer: Any = corpus_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, initializer_range=std, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
        tie_word_embeddings=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}" for name in ("student", "teacher", "prm")]
        for seed, path in enumerate(paths):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                AutoModelForCausalLM.from_config(config).save_pretrained(path)
            tokenizer.save_pretrained(path)
        yield paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all checks and writes the record; without MATH-500 the verifier's part stays as it was."""
    parser = argparse.ArgumentParser(prog="python -m lrd.checks.verification", description=str(__doc__).split("\n")[0])
    parser.add_argument("--math500", type=Path, default=MATH500, metavar="FILE", help="JSONL: id, solution, answer")
    args = parser.parse_args(arguments)
    record = recorded()
    try:
        record["verifier"] = check_verifier(args.math500)
    except UserError as error:
        print(f"verification: the verifier's record stays as it is: {error}", file=sys.stderr)
    record["grading"] = check_grading()
    with random_models() as (student, teacher, prm):
        record |= {"loss": check_loss(student), "twice": check_twice(student, teacher, prm)}
        record["forward"] = check_forward(student, teacher, prm)
    original = Cell.load("paper", regime="outcome", rank="full", seed=0)
    with random_models(WEIGHT_STD) as (student, teacher, _):
        record["precision"] = check_precision(student, teacher, original.learning_rate)
    path = published.write(RECORD, {key: record[key] for key in RECORDED if key in record})
    print(f"verification: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
