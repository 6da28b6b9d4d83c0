"""Training a small causal LM on a corpus of its own habits: from scratch, or from a pretrained one."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from lrd.data.tokens import beginnings, solutions
from lrd.models.loading import CausalLM, device, fuse_kernels
from lrd.models.policy import seed_of
from lrd.testbed.corpus import corpus


def pretrain(
    task: str,
    part: dict[str, Any],
    seed: int,
    tokenizer,
    prompt_template: str,
    start: CausalLM | None = None,
    shown: str = "",
) -> tuple[CausalLM, float]:
    """The model of one section of a recipe, trained on solutions of train problems; and the seconds it took.

    It begins from `start`, which `prepared` has made ready, or from scratch where there is none.
    """
    begun, to = time.perf_counter(), device()
    ids, labels, lengths = _documents(task, part, seed, tokenizer, prompt_template)
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    ids, labels = ids.to(to), labels.to(to)  # once and for all: a batch is a selection of rows
    if start is None:
        torch.manual_seed(seed)
        model: CausalLM = Qwen3ForCausalLM(_config(part["shape"], tokenizer))
        model.to(to)
        if to.type == "cuda":
            fuse_kernels(model)
    else:
        model = start

    def batch_loss(rows: Sequence[int]) -> Tensor:
        at, width = torch.tensor(rows, device=to), max(lengths[row] for row in rows)
        # A GPU's fast attention takes no mask, and none is needed: causal attention does not look at what comes behind.
        seen = mask[at, :width].long() if to.type == "cpu" else None
        return model(input_ids=ids[at, :width], attention_mask=seen, labels=labels[at, :width]).loss

    size = lengths.__getitem__
    fit(model, range(len(lengths)), batch_loss, seed=seed, size=size, shown=shown, **schedule(part["train"]))
    return model, time.perf_counter() - begun


def _documents(
    task: str, part: dict[str, Any], seed: int, tokenizer, template: str
) -> tuple[Tensor, Tensor, list[int]]:
    """Prompts with solutions as token ids [N, T], padded on the right; labels, −100 off the solutions; lengths.

    N is the section's number of documents, T the length of the longest in tokens.
    """
    rng = random.Random(seed)
    made = corpus(task).made(part["habits"], rng)
    asked, written = [], []
    for _ in range(part["train"]["documents"]):
        problem = next(made)
        asked.append(template.replace("{problem}", problem.text))
        written.append(corpus(task).solution(problem, part["habits"], rng))
    prompts = beginnings(asked, tokenizer)
    documents = [prompt + ids for prompt, ids in zip(prompts, solutions(written, tokenizer))]
    lengths = [len(ids) for ids in documents]
    place = torch.arange(max(lengths))
    mask = place < torch.tensor(lengths)[:, None]
    ids = torch.full(mask.shape, tokenizer.pad_token_id)
    ids[mask] = torch.tensor(list(itertools.chain.from_iterable(documents)))
    scored = mask & (place >= torch.tensor([len(p) for p in prompts])[:, None])
    return ids, ids.masked_fill(~scored, -100), lengths


def prepared(model: CausalLM, part: dict[str, Any], seed: int, before: Path | None = None) -> CausalLM:
    """A pretrained model as a section trains it: under a LoRA adapter of rank `adapter`, or in full without that key.

    The adapter is on every linear layer but the head, and its α is twice the rank. It is a new one, or goes on from the
    one in the directory `before`.
    """
    if "adapter" not in part:
        return model
    if before is not None:
        return PeftModel.from_pretrained(model, str(before), is_trainable=True)
    torch.manual_seed(seed)
    config = LoraConfig(r=part["adapter"], lora_alpha=2 * part["adapter"], target_modules="all-linear")
    return get_peft_model(model, config)


def _config(shape: dict[str, Any], tokenizer) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        head_dim=shape["hidden_size"] // shape["num_attention_heads"],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"initializer_range": 0.05, "max_position_embeddings": 1024} | shape,
    )


def schedule(part: dict[str, Any]) -> dict[str, Any]:
    """What `fit` takes of a section."""
    kinds = ("steps", "batch", "learning_rate", "dtype", "sorted_batches")
    return {key: part[key] for key in kinds if key in part}


def fit(
    model: CausalLM,
    rows: Sequence[Any],
    batch_loss: Callable[[Sequence[Any]], Tensor],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    dtype: str = "float32",
    sorted_batches: int = 1,
    size: Callable[[Any], int] = len,
    shown: str = "",
) -> None:
    """AdamW with a short warm-up and a cosine to zero; leaves the model in evaluation mode.

    `dtype` is that of the products, `sorted_batches` and `size` are those of `batches`. Prints where it is five times,
    under the name `shown`, if there is one.
    """
    start, on = time.perf_counter(), model.device.type
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True if on == "cuda" else None
    )
    warm = max(1, steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    model.train()
    drawn = batches(rows, batch, steps, random.Random(seed_of("batches", seed)), sorted_batches, size)
    for step, chosen in enumerate(drawn, 1):
        with torch.autocast(on, getattr(torch, dtype), enabled=dtype != "float32"):
            loss = batch_loss(chosen)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if shown and step % max(1, steps // 5) == 0:
            print(f"  {shown}: step {step} of {steps}, {time.perf_counter() - start:.0f} s", flush=True)
    model.eval()


def batches(
    rows: Sequence[Any], batch: int, steps: int, rng: random.Random, together: int = 1, size: Callable[[Any], int] = len
) -> Iterator[Sequence[Any]]:
    """`steps` batches; those drawn `together` are sorted by size among themselves, so that little is padding."""
    for start in range(0, steps, together):
        drawn = rng.sample(rows, batch * together)
        if together > 1:
            drawn.sort(key=size)
        cut = [drawn[i : i + batch] for i in range(0, len(drawn), batch)]
        rng.shuffle(cut)
        yield from cut[: steps - start]
