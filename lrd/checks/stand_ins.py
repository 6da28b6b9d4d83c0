"""Models of published shapes with random weights, their tokenizers, and problems: what a speed can be measured with."""

import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models as token_models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lrd import UserError
from lrd.cell import Cell
from lrd.models.loading import device
from lrd.models.shape import published

PROMPT = 100  # tokens of a prompt


def shapes_of(preset: str) -> dict[str, dict[str, Any]]:
    """The published shape of each of the preset's models, by role."""
    cell = Cell.load(preset, regime="outcome", rank=16, seed=0)
    known = published()
    names = {role: getattr(cell, role) for role in ("student", "teacher", "prm")}
    if unknown := sorted(set(names.values()) - known.keys()):
        raise UserError(f"book/models.toml has no shape for {', '.join(unknown)}, so there is no stand-in to measure")
    return {role: known[name] for role, name in names.items()}


def make(shapes: dict[str, dict[str, Any]], folder: Path) -> None:
    """Models of these shapes with random weights, their tokenizers, and problems of `PROMPT` tokens."""
    with ProcessPoolExecutor(len(shapes), mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_stand_in, *zip(*[(folder / role, shape) for role, shape in shapes.items()])))
    rng = random.Random(0)
    texts = (" ".join(f"w{rng.randrange(10**4)}" for _ in range(PROMPT - 2)) for _ in range(512))
    rows = [{"problem": text, "answer": "1"} for text in texts]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _stand_in(path: Path, shape: dict[str, Any]) -> None:
    tokenizer = prm_words() if path.name == "prm" else student_words(shape["vocab_size"])
    config = AutoConfig.for_model(**shape, eos_token_id=tokenizer.eos_token_id)
    config.bos_token_id = config.pad_token_id = None
    with device():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def student_words(size: int) -> PreTrainedTokenizerFast:
    """Each token a word of its own; one in forty ends a line, as steps of a solution do."""
    words = [f" w{i}\n" if i % 40 == 0 else f" w{i}" for i in range(size - 2)]
    return _tokenizer(["<unk>", "<eos>", *words], r" ?\S+\n?")


def prm_words() -> PreTrainedTokenizerFast:
    """One token a word of the student, the step tag among them."""
    return _tokenizer(["<unk>", "<eos>", "ки", "+", "-", *(f"w{i}" for i in range(30_000))], r"\S+")


def _tokenizer(vocabulary: list[str], pattern: str) -> PreTrainedTokenizerFast:
    raw = Tokenizer(token_models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    raw.decoder = decoders.Fuse()
    kinds = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **kinds)


def cell_of(preset: str, folder: Path, regime: str, rank: int | str, tokens: int | None = None, **changes: Any) -> Cell:
    at = {role: str(folder / role) for role in ("student", "teacher", "prm")}
    data = dict.fromkeys(("train_data", "eval_data"), str(folder / "problems.jsonl"))
    changes |= {"max_completion_tokens": tokens} if tokens else {}
    return Cell.load(preset, regime=regime, rank=rank, seed=0, **at, **data, **changes)
