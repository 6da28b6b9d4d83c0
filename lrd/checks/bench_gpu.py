"""The original's scale on one GPU: seconds a step by part, memory, and TRL's trainer on the same shapes beside it.

Speed and memory do not depend on what a model knows, so student, teacher and PRM are stand-ins: the published shapes
with random weights, saved and loaded as the Hub's are. Every completion runs to the cap (a random model ends one in a
hundred thousand tokens). Each contender has a process of its own, one after the other, and so the whole card.
"""

import datetime
import gc
import importlib.metadata
import itertools
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from lrd import UserError, sampling
from lrd.analysis.budget import shape_of
from lrd.cell import Cell
from lrd.checks import bench
from lrd.checks.stand_ins import PROMPT, cell_of, make, shapes_of
from lrd.data import problems
from lrd.models import loading as models
from lrd.models.policy import Policy
from lrd.names import runs_root
from lrd.runs.directory import Run
from lrd.runs.files import write_json
from lrd.train import evaluate
from lrd.train.loop import train

SHORT = 450  # tokens of a completion where length is varied
WARM_UP, STEPS = 2, 3  # steps that are not counted, and that are
ROWS = [  # regime, arm, completion tokens (None: the preset's cap)
    ("outcome", 16, None),
    ("outcome", "full", None),
    ("outcome", 1, None),
    ("outcome", 256, None),
    ("outcome", 16, SHORT),
    ("process", 16, None),
    ("process", "full", None),
    ("distillation", 16, None),
]
KINDS = {  # of kernels, by what their names contain; the first that fits
    "attention": "flash|fmha|sdpa|attention|attn",
    "products": "gemm|gemv|nvjet|cutlass|splitk",
    "drawing": "topk|topp|top_p|gumbel|temperature|argmax|sort|softmax|scan|exponential",
}
CACHES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # where compiled kernels are kept
PACKAGES = ("torch", "transformers", "peft", "vllm", "liger_kernel", "trl")


def run(preset: str) -> str:
    """Measures, writes `runs/bench/<gpu>-<date>.json` as it goes, and returns the table as text.

    Raises `UserError` without a GPU.
    """
    if not torch.cuda.is_available():
        raise UserError(f"lrd bench {preset} measures models of billions of parameters and needs a GPU")
    shapes, result = shapes_of(preset), _about(preset)
    path = runs_root() / "bench" / f"{re.sub(r'[^A-Za-z0-9]+', '-', result['gpu'])}-{result['date']}.json"
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        _alone(make, shapes, folder)
        result |= _alone(ceilings, preset)
        write_json(path, result)
        os.environ |= {name: str(folder / name) for name in CACHES}  # empty ones
        cold, warm = (_alone(first_step, preset, folder) for _ in range(2))
        ours = _alone(our_rows, preset, folder)
        about = {"cold_start_seconds": cold, "warm_start_seconds": warm, "eval_seconds": ours["eval_seconds"]}
        result |= {"rows": ours["rows"], "cells": [{"regime": "outcome", "arm": "r16"} | about]}
        write_json(path, result)
        for row, *arm in ((trl_row, 16), (trl_row, "full"), (fallback_row,)):
            result["rows"].append(_alone(row, preset, folder, *arm))
            write_json(path, result)
        for engine in ("vllm", "torch"):
            result["tokens"].append(_alone(token, preset, folder, engine))
            write_json(path, result)
    return show(result)


def _about(preset: str) -> dict[str, Any]:
    """What is measured where, with which packages; nothing measured yet."""
    cell = Cell.load(preset, regime="outcome", rank=16, seed=0)
    there = {d.name.replace("-", "_"): d.version for d in importlib.metadata.distributions()}
    return {
        "gpu": torch.cuda.get_device_name(),
        "date": datetime.date.today().isoformat(),
        "packages": {name: there.get(name) for name in PACKAGES},
        "shapes": {
            "prompts": cell.prompts_per_step,
            "samples": cell.samples_per_prompt,
            "prompt_tokens": PROMPT,
            "completion_tokens": cell.max_completion_tokens,
        },
        **{part: [] for part in ("rows", "tokens", "cells", "notes")},
    }


def _alone(call: Callable[..., Any], *args: Any) -> Any:
    """The call in a process of its own, whose memory on the card ends with it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(call, *args).result()


def first_step(preset: str, folder: Path) -> float:
    """Seconds from a process's start to the end of a first step: imports, models, engine, one problem, the step."""
    cell = cell_of(preset, folder, *ROWS[0], eval_problems=1)
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        next(train(Run(cell, runs)))
    return time.time() - psutil.Process().create_time()


def our_rows(preset: str, folder: Path) -> dict[str, Any]:
    """Every row of `ROWS`, with one engine, which serves all cells of a student; and the seconds of an evaluation."""
    first = cell_of(preset, folder, *ROWS[0])  # an engine with room for a whole cell's evaluations
    policy = Policy(first, models.device())
    engine = sampling.load(first, policy.base, policy.tokenizer)
    rows = []
    for regime, rank, tokens in ROWS:
        cell = cell_of(preset, folder, regime, rank, tokens, eval_problems=1)
        gc.collect()  # a model is a ring of references: what the last row held would still lie on the card
        torch.cuda.empty_cache()
        rows.append(_row("ours", cell, folder, engine))
        print(rows[-1], flush=True)
    whole = Cell.load(preset, regime="outcome", rank=16, seed=0)
    held_out = problems.held_out(first.eval_data, whole.eval_problems)
    start = time.perf_counter()
    evaluate.greedy(engine, held_out, first, policy.tokenizer)
    return {"rows": rows, "eval_seconds": time.perf_counter() - start}


def _row(who: str, cell: Cell, folder: Path, engine: sampling.Sampler | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        steps = list(itertools.islice(train(Run(cell, runs), engine), WARM_UP + STEPS))
    counted = steps[WARM_UP:]
    return {
        "who": who,
        "regime": cell.regime,
        "arm": cell.arm,
        "completion_tokens": cell.max_completion_tokens,
        "mean_length": statistics.mean(m["completions/mean_length"] for m in counted),
        "step": statistics.median(m["step_time"] for m in counted),
        "parts": {p: statistics.median(m[f"time/{p}"] for m in counted) for p in bench.PARTS},
        "peak_gib": max(m.get("memory/peak_gib", 0.0) for m in steps),
        "steps": len(counted),
        "logp_difference": steps[0].get("sampling/sampling_logp_difference/mean"),
    }


def fallback_row(preset: str, folder: Path) -> dict[str, Any]:
    """Our step with PyTorch's engine, which is what a GPU without vLLM gets."""
    cell = cell_of(preset, folder, *ROWS[0], eval_problems=1, engine="torch")
    return _row("ours without vLLM", cell, folder)


def token(preset: str, folder: Path, engine: str) -> dict[str, Any]:
    """What a token of all rows of a rollout takes in an engine, in ms, of `SHORT` tokens.

    `clock` is without a profiler, `greedy` with nothing drawn; `card` are the kernels' own times, by kind.
    """
    cell = cell_of(preset, folder, "outcome", 16, SHORT, engine=engine)
    policy = Policy(cell, models.device())
    sampler = sampling.load(cell, policy.base, policy.tokenizer)
    sampler.sync(policy.weights())
    pool, _ = problems.train_pool(cell.train_data)
    chosen = pool[: cell.prompts_per_step]
    prompts = [evaluate.encode(p, cell, policy.tokenizer) for p in chosen for _ in range(cell.samples_per_prompt)]

    def milliseconds(temperature: float) -> float:
        start = time.perf_counter()
        sampler.sample(prompts, max_tokens=SHORT, temperature=temperature, top_p=cell.top_p)
        return 1000 * (time.perf_counter() - start) / SHORT

    found = {}
    for name, temperature in (("clock", cell.temperature), ("greedy", 0.0)):
        found[name] = statistics.median([milliseconds(temperature) for _ in range(1 + STEPS)][1:])
    activities = [ProfilerActivity.CUDA] if torch.cuda.is_available() else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        milliseconds(cell.temperature)
    card: dict[str, float] = {}
    for kernel in profiler.key_averages():
        spent = kernel.self_device_time_total / 1000 / SHORT
        card[kind(kernel.key)] = card.get(kind(kernel.key), 0.0) + spent
    return {"engine": engine} | found | {"card": card}


def kind(kernel: str) -> str:
    """What a kernel does, by its name."""
    for name, pattern in KINDS.items():
        if re.search(pattern, kernel, re.IGNORECASE):
            return name
    return "the rest"


def trl_row(preset: str, folder: Path, arm: int | str) -> dict[str, Any]:
    """TRL's GRPOTrainer with vLLM in its process."""
    cell = cell_of(preset, folder, "outcome", arm)
    from lrd.checks import trl

    seconds = trl.step_seconds(cell, folder, WARM_UP + STEPS)[WARM_UP:]
    return {
        "who": "trl",
        "regime": "outcome",
        "arm": cell.arm,
        "completion_tokens": cell.max_completion_tokens,
        "step": statistics.median(seconds),
        "parts": {},
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "steps": len(seconds),
    }


def least_seconds(
    parameters: int,
    cache_bytes: int,
    *,
    rows: int,
    prompt: int,
    completion: int,
    bytes_a_second: float,
    products_a_second: float,
) -> dict[str, float]:
    """The least seconds of each part of a step at these rates, weights and cache in bf16, whatever the program.

    `cache_bytes` are those of a token in the key-value cache. Decoding reads every weight once a token, and half of
    the longest cache on average. A pass over the batch takes two operations a parameter and token; an adapter's
    gradient as many again, for the activations alone.
    """
    read = 2 * parameters + rows * cache_bytes * (prompt + completion / 2)
    reference = 2 * parameters * rows * (prompt + completion) / products_a_second
    return {"decode": completion * read / bytes_a_second, "learner": 2 * reference, "reference": reference}


def ceilings(preset: str) -> dict[str, Any]:
    """The card's own copy bandwidth and bf16 rate, and the least seconds of a step at them."""
    cell = Cell.load(preset, regime="outcome", rank=16, seed=0)
    shape = shape_of(cell.student)
    assert shape is not None
    a = torch.empty(2**32, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    copy = 2 * a.numel() / _fastest(lambda: b.copy_(a))
    x, y = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * 8192**3 / _fastest(lambda: x @ y)
    least = least_seconds(
        shape.parameters,
        2 * shape.cached,
        rows=cell.prompts_per_step * cell.samples_per_prompt,
        prompt=PROMPT,
        completion=cell.max_completion_tokens,
        bytes_a_second=copy,
        products_a_second=rate,
    )
    return {"ceilings": {"copy_tb_s": copy / 1e12, "bf16_tflop_s": rate / 1e12}, "roofline": least}


def _fastest(call: Callable[[], Any]) -> float:
    """Seconds of a call: the median of ten after three, by device events."""
    seconds = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return statistics.median(seconds[3:])


def show(result: dict[str, Any]) -> str:
    """The measurements as text."""
    lines = [f"{result['gpu']}, {result['date']}: seconds a step"]
    for row in result["rows"]:
        parts = "  ".join(f"{name} {seconds:.2f}" for name, seconds in row["parts"].items())
        lines.append(
            f"  {row['who']:<17} {row['regime']:<13} {row['arm']:<5} {row['completion_tokens']:>5} tokens "
            f"{row['step']:6.2f} s  {row['peak_gib']:5.1f} GiB  {parts}"
        )
    for each in result["tokens"]:
        clock = f"{each['clock']:.2f} ms, greedy {each['greedy']:.2f}"
        lines.append(f"  a token, engine {each['engine']}: {clock}; on the card {each['card']}")
    least = result["roofline"]
    lines.append(f"  bytes and products at the card's own rates: {sum(least.values()):.2f} s  {least}")
    return "\n".join(lines)
