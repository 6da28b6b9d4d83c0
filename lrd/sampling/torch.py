"""Sampling in process, with PyTorch alone: a static key-value cache, finished rows dropped as they end.

Small models decode at the speed of kernel launches, not of arithmetic, so decoders of the Llama family (Llama, Mistral,
Qwen2, Qwen3) run fused (`fused.py`), on CUDA without any Python between the products (`static.py`); any other
architecture runs through its own `forward` (`generic.py`). Every row and position has a uniform number of its own, so
that a completion does not depend on which other rows are still running.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd.data.tokens import end_ids
from lrd.models.loading import CausalLM
from lrd.rollouts import Completion, pad
from lrd.sampling import fused
from lrd.sampling.draw import Drawn, draw
from lrd.sampling.fused import FusedDecoder
from lrd.sampling.generic import ModelDecoder
from lrd.sampling.static import StaticDecoder

DROP_BELOW = 0.8  # share of rows still running; copying the cache for fewer finished rows costs more than it saves


class TorchSampler:
    """Completes prompts with its own copy of the weights; `model` gives architecture, dtype and device.

    Log-probabilities cost it nothing, so that it gives them always.
    """

    def __init__(self, model: CausalLM, tokenizer):
        self._device = model.device
        self._decoder = decoder = FusedDecoder(model) if fused.fits(model.config) else ModelDecoder(model)
        captured = self._device.type == "cuda"
        self._static = StaticDecoder(decoder) if captured and isinstance(decoder, FusedDecoder) else None
        self._pad = tokenizer.pad_token_id
        ends = end_ids(tokenizer, model.config, model.generation_config)
        self._eos = torch.tensor(sorted(ends), device=self._device)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self._decoder.load(dict(weights))

    @torch.inference_mode()
    def sample(
        self,
        prompts: list[list[int]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int = 0,
        logps: bool = True,
    ) -> list[Completion]:
        ids, mask = (x.to(self._device) for x in pad(prompts, self._pad, left=True))
        generator = torch.Generator(self._device).manual_seed(seed)
        uniform = torch.rand(max_tokens, len(prompts), generator=generator, device=self._device)
        if self._static is not None and self._static.fits(len(ids), ids.shape[1], max_tokens):
            drawn = self._static.sample(ids, mask, uniform, self._eos, temperature, top_p)
        else:
            drawn = self._step_by_step(ids, mask, uniform, temperature, top_p)
        rows = zip(*(x.tolist() for x in drawn))
        return [Completion(ids[:n], values[:n], not ended) for ids, values, n, ended in rows]

    def _step_by_step(
        self, ids: Int[Tensor, "N S"], mask: Bool[Tensor, "N S"], uniform: Float[Tensor, "T N"], temperature, top_p
    ) -> Drawn:
        """As `StaticDecoder.sample`, with any decoder."""
        drawn, max_tokens = Drawn.empty(uniform), len(uniform)
        rows = torch.arange(len(ids), device=self._device)  # those still in the decoder
        logits = self._decoder.prefill(ids, mask, max_tokens)
        for t in range(max_tokens):
            chosen = draw(logits, uniform[t], temperature, top_p)
            drawn.tokens[rows, t] = chosen
            drawn.logps[rows, t] = torch.log_softmax(logits, -1).gather(1, chosen[:, None])[:, 0]
            stops = (chosen[:, None] == self._eos).any(1)
            if stops.any():
                ends = rows[stops & ~drawn.ended[rows]]
                drawn.length[ends], drawn.ended[ends] = t + 1, True
                running = ~drawn.ended[rows]
                alive = int(running.sum())
                if alive == 0:
                    break
                if alive < DROP_BELOW * len(rows):
                    rows, chosen, uniform = rows[running], chosen[running], uniform[:, running]
                    self._decoder.keep(running)
            if t + 1 < max_tokens:
                logits = self._decoder.step(chosen)
        return drawn
