"""Sampling with vLLM in this process, for models whose decoding is worth an engine of its own.

The engine keeps its own copy of the weights and is given the learner's at every step, already merged: W + s·BA for an
adapter, the rounded master weights for full fine-tuning. vLLM comes with the `gpu` extra.
"""

import contextlib
import functools
import importlib.metadata
import os
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.data import hub
from lrd.data.tokens import end_ids
from lrd.models.limits import positions
from lrd.models.memory import ROOM, decoded_rows
from lrd.models.shape import Shape
from lrd.rollouts import Completion
from lrd.sampling.nucleus import CapturedNucleus

TRIED = ("0.25", "0.34")  # from the first, below the second
PROMPT_ROOM = 2048  # tokens of a prompt, at most
SEEDS = 2**62
_last: weakref.ref | None = None  # to the core of the engine that was started last


class VLLMSampler:
    """Completes prompts with vLLM; the model's shape comes from the cell's student, its weights from `sync` alone.

    A process uses one at a time: where engines share what one of them takes down, the next ends the last.
    """

    def __init__(self, cell: Cell, model, tokenizer):
        check()
        # The weights are handed over as tensors, so the engine has to live in this very process.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        from vllm import LLM  # pyright: ignore[reportAttributeAccessIssue] (of the gpu extra)

        global _last
        # The process groups are shared. Newer versions take them down whenever an engine is collected, so now and not
        # later; older ones (0.25) have no such finalizer and leave them as they are.
        if _last and hasattr(core := _last(), "_finalizer"):
            core.shutdown()  # pyright: ignore[reportOptionalMemberAccess]
        _last = None
        _own_nucleus()
        self._eos = sorted(end_ids(tokenizer, model.config, model.generation_config))
        wanted = cell.max_completion_tokens + PROMPT_ROOM
        self._longest = min(wanted, positions(model.config) or wanted)
        rows = decoded_rows(cell)
        # Rows of longer prompts wait until others have ended.
        cached = max(self._longest, rows * min(self._longest, cell.max_completion_tokens + ROOM))
        self._llm = LLM(
            model=str(hub.model_folder(cell.student, "student", weights=True)),
            dtype=cell.dtype,
            load_format="dummy",  # `sync` comes before the first rollout
            skip_tokenizer_init=True,
            max_model_len=self._longest,
            max_num_seqs=rows,
            # A fixed share of the card, known before anything is loaded: learner and reward models keep the rest.
            kv_cache_memory_bytes=cached * Shape.from_config(model.config).cached * model.dtype.itemsize,
            gpu_memory_utilization=0.01,  # not used with the line above, but its share has to be free
            enable_prefix_caching=False,  # what was cached would be another policy's
            disable_log_stats=True,
            seed=0,
        )
        _last = weakref.ref(self._llm.llm_engine.engine_core)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._llm.apply_model(functools.partial(_load, weights))

    def sample(
        self,
        prompts: list[list[int]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int = 0,
        logps: bool = False,
    ) -> list[Completion]:
        from vllm import SamplingParams, TokensPrompt  # pyright: ignore[reportAttributeAccessIssue]

        longest = max(map(len, prompts))
        if longest + max_tokens > self._longest:
            raise UserError(
                f"a prompt has {longest} tokens and may be completed by {max_tokens}; the engine was started for "
                f"{self._longest} in all, with {PROMPT_ROOM} for a prompt"
            )
        how: dict[str, Any] = dict(max_tokens=max_tokens, temperature=temperature, top_p=top_p if temperature else 1.0)
        how |= dict(stop_token_ids=self._eos, detokenize=False, logprobs=0 if logps else None)
        # A seed a row: a completion does not depend on which others run beside it.
        each = [
            SamplingParams(**how, seed=(seed + row) % SEEDS if temperature else None) for row in range(len(prompts))
        ]
        outputs = self._llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], each, use_tqdm=False)
        return [_completion(output.outputs[0]) for output in outputs]


def _own_nucleus() -> None:
    """Has vLLM draw from our nucleus: it looks for a row's on one multiprocessor, a quarter of a token's time.

    (FlashInfer's way of drawing, which needs no search, does not know seeds of rows.) Where a version draws in another
    place it goes on as it does, to the same nucleus but for ties at its edge.
    """
    with contextlib.suppress(ImportError):
        from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p  # pyright: ignore[reportMissingImports]
        from vllm.v1.worker.gpu.sample import sampler  # pyright: ignore[reportMissingImports]

        nucleus = CapturedNucleus()

        def apply(logits: Tensor, k: Tensor | None, p: Tensor | None) -> Tensor:
            return nucleus(logits, p) if k is None and p is not None else apply_top_k_top_p(logits, k, p)

        if hasattr(sampler, "apply_top_k_top_p"):
            sampler.apply_top_k_top_p = apply


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    logps = [at[token].logprob for token, at in zip(ids, output.logprobs)] if output.logprobs else None
    return Completion(ids, logps, output.finish_reason == "length")


def _load(weights: Iterable[tuple[str, Tensor]], model: Any) -> None:
    """Gives vLLM's model the weights under their names in the checkpoint; it fuses and splits them itself."""
    loaded = model.load_weights(weights)
    missing = {name for name, _ in model.named_parameters()} - set(loaded)
    if missing:
        raise RuntimeError(f"vLLM was given no weights for {', '.join(sorted(missing)[:5])}")


def installed() -> None:
    """Raises `UserError` where vLLM is missing, or of a version that was never tried."""
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "engine 'vllm' needs vLLM, which is not installed: pip install -e '.[gpu]', or --set engine=torch"
        ) from None
    if not Version(TRIED[0]) <= Version(version) < Version(TRIED[1]):
        raise UserError(
            f"vLLM {version} is installed; this engine works with {TRIED[0]} up to, not including, {TRIED[1]}: "
            f"install one of those, or --set engine=torch"
        )


def check() -> None:
    """Raises `UserError` where vLLM cannot sample here: not installed, or no GPU."""
    installed()
    if not torch.cuda.is_available():
        raise UserError("engine 'vllm' decodes on a GPU, and PyTorch finds none here; --set engine=torch does without")
