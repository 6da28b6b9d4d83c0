"""Trains the models of a recipe side by side, and measures them; what it leaves lies under `models/<name>/`."""

import functools
import multiprocessing
import os
import random
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import torch
from peft import PeftModel

from lrd import ROOT, UserError
from lrd.cell import Cell
from lrd.data.problems import TASKS, Problem, as_problem, held_out, stream, train_pool
from lrd.models.loading import CausalLM, device, load_model, load_tokenizer
from lrd.models.policy import seed_of
from lrd.presets import preset_names, read_preset
from lrd.results import unbiased
from lrd.rewards.process import PRM
from lrd.runs.files import read_json, write_json
from lrd.runs.provenance import fingerprint
from lrd.sampling.torch import TorchSampler
from lrd.testbed import kept, pretrained, prm as shepherd, recipe
from lrd.testbed.corpus import tokenizer
from lrd.testbed.pretrain import prepared, pretrain
from lrd.train import evaluate

PROBLEMS, SAMPLES = 200, 8  # of the card's evaluations
TRAINING = 39 << 30  # bytes that training a model of the small testbed has taken on a GPU


def build(name: str) -> dict[str, Any]:
    """Trains what the recipe says, unless `models/<name>` is its result already; returns the card."""
    what = recipe.load(name)
    target, wanted = ROOT / "models" / name, recipe.digest(name, torch.__version__)
    target.parent.mkdir(exist_ok=True)
    with filelock.FileLock(target.with_name(f".{name}.lock")):  # a second caller waits, and then finds it made
        card = read_json(target / "card.json")
        return card if card is not None and card["recipe_hash"] == wanted else _build(name, what, wanted)


def _build(name: str, what: dict[str, Any], wanted: str) -> dict[str, Any]:
    started, target = time.perf_counter(), ROOT / "models" / name
    roles = [role for role, section in what.items() if isinstance(section, dict) and "train" in section]
    worlds = {w: world | {"kept": kept.FOLDER / name / w} for w, world in recipe.worlds(what).items()}
    ready = all(kept.card(world, role) for world in worlds.values() for role in what.keys() & {*roles, "prm"})
    if read_preset(name)["resources"]["gpus"] and not ready and not torch.cuda.is_available():
        raise UserError(f"testbed {name!r} is for a GPU, and PyTorch finds none here; tiny does without")
    part = target.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    cell = _cell(name)
    if "start" in what:
        pretrained.folder(what["start"])
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half alive
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS asks of who wants the same bits again
    seats = _seats()
    gpus = spawn.SimpleQueue()
    for gpu in seats:
        gpus.put(gpu)
    with ProcessPoolExecutor(len(seats), mp_context=spawn, initializer=_sit, initargs=(gpus,)) as pool:
        roles.sort(key=lambda role: -recipe.cost(what[role]))  # the longest first: the others run beside it
        cards: dict[str, dict[str, Any]] = {}
        for going_on in (False, True):  # those that begin from another one's adapter come after it
            turn = [role for role in roles if ("from" in what[role]) == going_on]
            jobs = {w + role: pool.submit(_train, role, worlds[w], part / w, cell) for role in turn for w in worlds}
            cards |= {role: job.result() for role, job in jobs.items()}
        jobs = {f"{w}prm": pool.submit(_train_prm, worlds[w], part / w, cell) for w in worlds if "prm" in what}
        measured = {role: what[role].get("data", cell.eval_data) for role in roles if role != "completer"}
        for w in worlds:
            todo = {role: data for role, data in measured.items() if "greedy" not in cards[w + role]}
            jobs |= {w + role: pool.submit(_measure, role, data, part / w, cell) for role, data in todo.items()}
        for role, job in jobs.items():
            cards[role] = cards.get(role, {}) | job.result()
    for w, role in [(w, role) for w in worlds for role in what.keys() & {*roles, "prm"}]:
        cards[w + role]["fingerprint"] = fingerprint(str(part / w / role))
        if (adapter := part / w / "adapters" / role).is_dir():
            kept.tell(worlds[w], role, adapter, cards[w + role])
    card = {"recipe_hash": wanted, "seconds": round(time.perf_counter() - started, 1), "models": cards, "recipe": what}
    write_json(part / "card.json", card)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return card


def show(name: str, card: dict[str, Any]) -> str:
    """The card as text."""
    lines = [f"testbed {name} · {card['seconds']:.0f} s · recipe {card['recipe_hash']} · models/{name}/"]
    for role, model in card["models"].items():
        line = f"  {role:<10} {model['parameters'] / 1e3:6.0f} k parameters {model['seconds']:6.1f} s"
        if "greedy" in model:
            line += f"   greedy {model['greedy']:.2f}"
            line += "".join(f"   pass@{k} {model[f'pass@{k}']:.2f}" for k in (1, 4, 8))
        if "held_out_step_accuracy" in model:
            line += f"   held-out step accuracy {model['held_out_step_accuracy']:.2f}"
            line += f" (always the commoner label: {model['majority_step_accuracy']:.2f})"
        lines.append(line)
    return "\n".join(lines)


def _cell(name: str) -> Cell:
    """The preset that the testbed serves: its prompt and its sampling are those of the study."""
    if name not in preset_names():
        raise UserError(f"testbed {name!r} has no preset of its name")
    return Cell.load(name, regime="outcome", rank=1, seed=0)


def _seats() -> list[int]:
    """The GPU of each job that can run beside the others: on a GPU as many as its memory holds."""
    if not torch.cuda.is_available():
        return [0] * min(2, os.cpu_count() or 1)
    memory = [torch.cuda.get_device_properties(gpu).total_memory for gpu in range(torch.cuda.device_count())]
    most = max(max(1, m // TRAINING) for m in memory)
    return [gpu for turn in range(most) for gpu, m in enumerate(memory) if turn < max(1, m // TRAINING)]


def _sit(gpus: Any) -> None:
    """A worker keeps to one GPU, and where it can to algorithms that give the same bits again."""
    gpu = gpus.get()
    torch.set_num_threads(1)
    # With `warn_only`, fused attention (cuDNN's, flash, memory-efficient) goes on with backward passes whose sums have
    # no fixed order, by PyTorch's source: on a GPU the weights need not be the same again.
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", "cumsum")  # along rows as short as a vocabulary it has one order
    # Nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu)


def _train(role: str, what: dict[str, Any], into: Path, cell: Cell) -> dict[str, Any]:
    words, seed, shown = _words(what), seed_of(role, what["seed"]), f"{role} of seed {what['seed']}"
    start, part = _start(what), what[role]
    if start is not None and (card := kept.card(what, role)) is not None:
        model = prepared(start, part, seed, what["kept"] / role)
        return card | {"parameters": _save(model, words, into, role, cell.dtype)}
    if start is not None:
        start = prepared(start, part, seed, into / "adapters" / part["from"] if "from" in part else None)
    model, seconds = pretrain(what["task"], part, seed, words, cell.prompt_template, start, shown=shown)
    parameters = _save(model, words, into, role, cell.dtype)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # another worker has the same card
    return {"parameters": parameters, "seconds": round(seconds, 1)}


def _train_prm(what: dict[str, Any], into: Path, cell: Cell) -> dict[str, Any]:
    started, part, words, seed = time.perf_counter(), what["prm"], _words(what), what["seed"]
    judge, reader = _judge(what, into)
    if (card := kept.card(what, "prm")) is not None:
        return card | {"parameters": _save(judge, reader, into, "prm", cell.dtype)}
    completer = part.get("completer", "completer")
    samplers = {role: _sampler(into / role, role, cell, words) for role in ("student", completer)}
    decoding = {"max_tokens": cell.max_completion_tokens, "rows": part["rows"]}
    rows = {}
    for split, n in (("train", part["solutions"]), ("held-out", part["held_out"])):
        chosen = _drawn(what["task"], split == "held-out", n, random.Random(seed_of("prm", split, seed)))
        prompts = [evaluate.encode(p, cell, words) for p in chosen]
        solutions = shepherd.solve(samplers["student"], prompts, seed_of("solve", split, seed), **decoding)
        at = seed_of("label", split, seed)
        complete = functools.partial(shepherd.solve, samplers[completer], seed=at, **decoding)
        labels = shepherd.label_steps(chosen, prompts, solutions, complete, words, part["completions"])
        rows[split] = shepherd.tagged(chosen, solutions, labels, PRM(judge, reader, "testbed"))
    shepherd.train_prm(judge, rows["train"], part, reader, seed, shown=f"prm of seed {seed}")
    parameters = _save(judge, reader, into, "prm", cell.dtype)
    prm = PRM(load_model(str(into / "prm"), "PRM", cell.dtype, device()), reader, "testbed")
    marks = [mark for _, labels in rows["held-out"] for mark in labels if mark >= 0]
    return {
        "parameters": parameters,
        "seconds": round(time.perf_counter() - started, 1),
        "held_out_step_accuracy": shepherd.step_accuracy(prm, rows["held-out"]),
        "majority_step_accuracy": max(sum(marks), len(marks) - sum(marks)) / len(marks),
    }


def _words(what: dict[str, Any]) -> Any:
    """The tokenizer of a world's models."""
    return load_tokenizer(pretrained.folder(what["start"]), "start") if "start" in what else tokenizer(what["task"])


def _start(what: dict[str, Any]) -> CausalLM | None:
    """The pretrained model that a world's models begin from, where the recipe names one."""
    if "start" not in what:
        return None
    model = load_model(name := pretrained.folder(what["start"]), "start", "float32", device())
    model.name_or_path = name  # an adapter's configuration names it, and no path of this machine
    return model


def _judge(what: dict[str, Any], into: Path) -> tuple[CausalLM, Any]:
    """The PRM before its training, and its tokenizer: the completer, or the pretrained model with a step tag."""
    words, start = _words(what), _start(what)
    if start is None:
        return load_model(str(into / "completer"), "completer", "float32", device()), words
    shepherd.add_tag(start, words)
    there = what["kept"] / "prm" if kept.card(what, "prm") is not None else None
    return prepared(start, what["prm"], seed_of("prm's adapter", what["seed"]), there), words


def _save(model: CausalLM, words: Any, into: Path, role: str, dtype: str) -> int:
    """Leaves a checkpoint and, where an adapter was trained, the adapter in bfloat16 beside it.

    What is merged is the rounded adapter, in float64, where sums of products of a few bfloat16 numbers hardly round:
    whoever has the pretrained model gets this checkpoint from the adapter, whatever the processor.
    Returns the number of the checkpoint's parameters.
    """
    if isinstance(model, PeftModel):
        model = model.cpu()
        for p in model.parameters():
            if p.requires_grad:
                p.data = p.data.bfloat16()
        # Embeddings stay out of the file, though the PRM's have a row more: `add_tag` makes it again.
        model.save_pretrained(str(into / "adapters" / role), save_embedding_layers=False)
        model = model.double().merge_and_unload()
    model.to(getattr(torch, dtype)).save_pretrained(into / role)
    words.save_pretrained(into / role)
    return sum(p.numel() for p in model.parameters())


def _drawn(task: str, is_held_out: bool, n: int, rng: random.Random) -> list[Problem]:
    """Problems for the PRM's solutions, from one side of the task's split."""
    if task in TASKS:
        made = stream(task, rng, is_held_out=is_held_out)
        return [as_problem(next(made)) for _ in range(n)]
    return held_out(task, n) if is_held_out else rng.sample(train_pool(task, n)[0], n)


def _measure(role: str, data: str, into: Path, cell: Cell) -> dict[str, Any]:
    words = load_tokenizer(str(into / role), role)
    sampler, problems = _sampler(into / role, role, cell, words), held_out(data, PROBLEMS)
    rows = evaluate.greedy(sampler, problems, cell, words)
    sampled = evaluate.sampled(sampler, problems, cell, words, samples=SAMPLES, seed=0)
    hits = [sum(row["correct"] for row in rows) for rows in sampled]
    return {"greedy": sum(row["correct"] for row in rows) / len(rows)} | {
        f"pass@{k}": sum(unbiased(SAMPLES, c, k) for c in hits) / len(hits) for k in (1, 4, 8)
    }


def _sampler(path: Path, role: str, cell: Cell, words: Any) -> TorchSampler:
    """PyTorch's engine with the weights of a checkpoint."""
    model = load_model(str(path), role, cell.dtype, device())
    sampler = TorchSampler(model, words)
    sampler.sync(model.state_dict().items())
    return sampler
