"""Checks of the machinery whose results the book shows: `python -m lrd.verification` records them anew.

What cannot be computed while the book is built is recorded in `book/verification.json`: the loss against TRL's trainer
(TRL is installed for tests only), the verifier on MATH-500 (which is not part of the repository) and cells run twice.
Nothing of the record should depend on the machine: a test records again and compares. Torch-free at import.
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from lrd import ROOT, UserError, verifier
from lrd.cell import REGIMES, Cell
from lrd.results import Results
from lrd.run import Run, read_json, read_jsonl, write_json

RECORD = ROOT / "book" / "verification.json"
MATH500 = ROOT.parent / "shared" / "data" / "math500.jsonl"
BATCHES = 20  # of random advantages a kind of aggregation; k3 summed in another order would differ in one of ten
TIMES = ("step_time", *(f"time/{p}" for p in ("rollout", "learner", "reward", "reference", "update", "sync")))
LOSS_TYPES = {"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}  # our aggregation → TRL's name for it
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
GAP = "sampling/sampling_logp_difference"


def recorded() -> dict[str, Any]:
    """The record: `verifier`, `loss` and `twice`, as the functions of these names return them."""
    return read_json(RECORD) or {}


def check_verifier(problems: Path = MATH500) -> dict[str, Any]:
    """MATH-500's reference solutions, graded against their own gold answers: ids only, none of its text.

    `bare_lost`: graded as the original did, with the bare gold string. `bare_unparsed`: those whose gold answer alone
    parses to nothing. `boxed_lost`: graded as we do. `next_paid`: solutions that verify against the next problem's
    answer as we grade, of `next_pairs` whose answers are different strings.
    """
    import logging

    from math_verify import parse

    if not problems.is_file():
        raise UserError(f"{problems.name} is not at hand; give its place with --math500 FILE")
    text = problems.read_bytes()
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


def check_loss(student: str, batches: int = BATCHES) -> dict[str, Any]:
    """Our loss and its gradients against TRL's own `GRPOTrainer`: the largest absolute difference, by aggregation.

    Both get the same tokens, advantages, log π_old, log π_ref and the log π_θ of TRL's forward pass, off-policy by up
    to e^±0.5 so that clipping acts; `clipped` is the smallest share of clipped tokens. `other_estimator` is the
    smallest difference with the report's KL estimator in place of TRL's: that the comparison can tell.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    from lrd import grpo

    beta, epsilon, width = 0.07, 0.2, 24
    tokenizer = AutoTokenizer.from_pretrained(student)
    with tempfile.TemporaryDirectory() as folder:
        trainer: Any = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(student),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
                per_device_train_batch_size=4, num_generations=4, max_completion_length=width, temperature=1.0,
                beta=beta, epsilon=epsilon, use_bias_correction_kl=False, use_vllm=False,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["Last digit:1a+2\n"]}),
            processing_class=tokenizer,
        )  # fmt: skip
    model = trainer.model.eval()

    def differences(aggregation: str, kl_estimator: str, seed: int) -> tuple[float, float, float]:
        trainer.loss_type = LOSS_TYPES[aggregation]
        generator = torch.Generator().manual_seed(seed)
        prompts = torch.randint(2, len(tokenizer), (4, 9), generator=generator)
        completions = torch.randint(2, len(tokenizer), (4, width), generator=generator)
        lengths = torch.tensor([width, 1, 7, 15])
        mask = torch.arange(width)[None] < lengths[:, None]
        ids, seen = torch.cat([prompts, completions], 1), torch.cat([torch.ones_like(prompts), mask.long()], 1)
        logps = trainer._get_per_token_logps_and_entropies(model, ids, seen, width)[0]
        old, ref = (logps.detach() + torch.rand(4, width, generator=generator) - 0.5 for _ in range(2))
        advantages = torch.randn(4, width, generator=generator)
        theirs = trainer._compute_loss(
            model,
            dict(
                prompt_ids=prompts, prompt_mask=torch.ones_like(prompts), completion_ids=completions,
                completion_mask=mask.long(), advantages=advantages, old_per_token_logps=old, ref_per_token_logps=ref,
            ),
        )  # fmt: skip
        ours, about = grpo.loss(
            logps, old, ref, advantages, mask, clip_epsilon=epsilon, kl_coef=beta, kl_estimator=kl_estimator,
            aggregation=aggregation, max_tokens=width,
        )  # fmt: skip
        gradients = []
        for value in (theirs, ours):
            model.zero_grad()
            value.backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        gap = max((a - b).abs().max().item() for a, b in zip(*gradients))
        return abs(theirs.item() - ours.item()), gap, about["clip_ratio/region_mean"]

    found = {}
    for aggregation, theirs in LOSS_TYPES.items():
        runs = [differences(aggregation, "k3", seed) for seed in range(batches)]
        found[aggregation] = {
            "loss_type": theirs,
            "loss": max(loss for loss, _, _ in runs),
            "gradient": max(gradient for _, gradient, _ in runs),
            "clipped": round(min(clipped for _, _, clipped in runs), 3),
        }
    other = min(differences("token", "paper", seed)[0] for seed in range(batches))
    version = metadata.version("trl")
    return {"trl": version, "batches": batches, "aggregations": found, "other_estimator": round(other, 4)}


def check_twice(student: str, teacher: str, prm: str, steps: int = 3) -> dict[str, Any]:
    """A short cell of each regime and kind of arm, run twice in directories of their own: which records differ.

    Compared are all rows of metrics (less wall times), evaluations and logged completions, and the weights' bytes.
    """
    found = []
    for regime in REGIMES:
        for rank in (4, None):
            cell = Cell(
                preset="test", regime=regime, rank=rank, seed=0, student=student, teacher=teacher, prm=prm,
                train_data="chain", eval_data="chain", eval_problems=5, max_completion_tokens=12, steps=steps,
                learning_rate=1e-2, eval_every=3, logged_completions=2,
            )  # fmt: skip
            with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
                one, two = _finish(cell, Path(first)), _finish(cell, Path(second))
            differing = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
            found.append({"regime": regime, "arm": cell.arm, "records": len(one), "differing": differing})
    return {"steps": steps, "cells": found}


def _finish(cell: Cell, runs: Path) -> dict[str, Any]:
    """A cell trained in `runs`, as what it left: file → its rows without times, or its bytes' hash."""
    from lrd.train import train

    run = Run(cell, runs)
    for _ in train(run):
        pass
    run.finish()
    left: dict[str, Any] = {}
    for path in run.path.glob("*.jsonl"):
        left[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in read_jsonl(path)]
    for path in (run.path / "adapter").glob("*.safetensors"):
        left[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return left


@contextlib.contextmanager
def random_models():
    """Directories of three random two-layer models with the testbed's tokenizer: student, teacher, PRM."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    from lrd.testbed.corpus import tokenizer as corpus_tokenizer

    tokenizer: Any = corpus_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, initializer_range=0.15, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
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


def sampler_gap(results: Results) -> pd.DataFrame:
    """Sampler against learner, one row a regime: steps, mean |difference| of a token's log-probability, the largest."""
    names = [f"{GAP}/mean", f"{GAP}/max"]
    steps = results.of_finished(results.steps).reindex(columns=["regime", *names]).dropna()
    by_regime = steps.groupby("regime")
    table = pd.DataFrame({"steps": by_regime.size(), "mean": by_regime[names[0]].mean()})
    table["max"] = by_regime[names[1]].max()
    return table.reindex([regime for regime in results.regimes if regime in table.index])


def first_batches(results: Results) -> pd.DataFrame:
    """What cells of a seed have in common before their first update, one row a seed: cells, and distinct first batches.

    Untrained arms are one policy, and prompts and draws depend on the seed alone: there should be one batch a seed.
    """
    names = ["entropy", "completions/mean_length", "accuracy"]
    steps = results.of_finished(results.steps).reindex(columns=["seed", "step", *names])
    first = steps[steps.step == 1].dropna()
    counts = {
        seed: {"cells": len(mine), "batches": len(mine[names].drop_duplicates())}
        for seed, mine in first.groupby("seed")
    }
    return pd.DataFrame.from_dict(counts, orient="index", columns=["cells", "batches"])


def facts(record: dict[str, Any], results: Results) -> dict[str, str]:
    """What the page's sentences say, keyed by the names that they are glued under; true whatever was recorded."""
    from lrd.stats import NOTHING, counted

    graded, loss, twice = record["verifier"], record["loss"], record["twice"]
    worst = max(max(row["loss"], row["gradient"]) for row in loss["aggregations"].values())
    equal = sum(not cell["differing"] for cell in twice["cells"])
    gaps = sampler_gap(results)
    both = len(set(graded["bare_unparsed"]) & set(graded["bare_lost"]))
    return {
        "problems": str(graded["problems"]),
        "bare": str(len(graded["bare_lost"])),
        "bare_share": f"{100 * len(graded['bare_lost']) / graded['problems']:.1f} %",
        "unparsed": str(both),
        "boxed": str(len(graded["boxed_lost"])),
        "paid": str(len(graded["next_paid"])),
        "pairs": str(graded["next_pairs"]),
        "math_verify": graded["math_verify"],
        "trl": loss["trl"],
        "batches": str(loss["batches"]),
        "loss": "zero, to the last bit" if worst == 0 else scientific(worst),
        "clipped": f"{100 * min(row['clipped'] for row in loss['aggregations'].values()):.0f} %",
        "other": f"{loss['other_estimator']:.4f}",
        "twice": f"{equal} of {counted(len(twice['cells']), 'pair')}",
        "steps": counted(twice["steps"], "step"),
        "gap_steps": f"{int(gaps.steps.sum()):,}",
        "gap": f"{scientific(gaps['max'].to_numpy().max())} nats" if len(gaps) else NOTHING,
    }


def scientific(x: float) -> str:
    """`2.8 × 10⁻⁵`, and `0` for zero."""
    if not x:
        return "0"
    digits, exponent = f"{x:.1e}".split("e")
    return f"{digits}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all checks and writes the record; without MATH-500 the verifier's part stays as it was."""
    parser = argparse.ArgumentParser(prog="python -m lrd.verification", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--math500", type=Path, default=MATH500, metavar="FILE", help="JSONL: id, solution, answer")
    args = parser.parse_args(arguments)
    record = recorded()
    try:
        record["verifier"] = check_verifier(args.math500)
    except UserError as error:
        print(f"verification: the verifier's record stays as it is: {error}", file=sys.stderr)
    with random_models() as (student, teacher, prm):
        record |= {"loss": check_loss(student), "twice": check_twice(student, teacher, prm)}
    write_json(RECORD, {key: record[key] for key in ("verifier", "loss", "twice") if key in record})
    print(f"verification: {RECORD.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
