"""Training a small causal LM from scratch on a corpus of its own habits."""

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from lrd.models import CausalLM, device
from lrd.policy import seed_of
from lrd.problems import chains
from lrd.rollouts import pad
from lrd.testbed.corpus import solution


def pretrain(part: dict[str, Any], seed: int, tokenizer, prompt_template: str) -> tuple[CausalLM, float]:
    """The model of one section of a recipe, trained on solutions of train problems; and the seconds it took."""
    start = time.perf_counter()
    rng = random.Random(seed)
    stream = chains(rng, is_held_out=False)
    documents = []
    for _ in range(part["train"]["documents"]):
        chain = next(stream)
        prompt = tokenizer(prompt_template.replace("{problem}", chain.text)).input_ids
        text = tokenizer(solution(chain, part["habits"], rng)).input_ids + [tokenizer.eos_token_id]
        documents.append((prompt + text, [-100] * len(prompt) + text))
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        head_dim=part["shape"]["hidden_size"] // part["shape"]["num_attention_heads"],
        max_position_embeddings=1024,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **part["shape"],
    )
    model: CausalLM = Qwen3ForCausalLM(config)
    model.to(device())

    def batch_loss(rows: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        ids, mask = pad([ids for ids, _ in rows], tokenizer.pad_token_id)
        labels, _ = pad([labels for _, labels in rows], -100)
        return model(
            ids.to(model.device), attention_mask=mask.long().to(model.device), labels=labels.to(model.device)
        ).loss

    fit(model, documents, batch_loss, seed=seed, **{k: part["train"][k] for k in ("steps", "batch", "learning_rate")})
    return model, time.perf_counter() - start


def fit(
    model: nn.Module,
    rows: Sequence[Any],
    batch_loss: Callable[[Sequence[Any]], Tensor],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> None:
    """AdamW with a short warm-up and a cosine to zero; leaves the model in evaluation mode."""
    rng = random.Random(seed_of("batches", seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    warm = max(1, steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    model.train()
    for _ in range(steps):
        batch_loss(rng.sample(rows, batch)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()
