"""Sampling in process, with PyTorch alone: a static key-value cache, finished rows dropped as they end.

Small models decode at the speed of kernel launches, not of arithmetic, so decoders of the Llama family (Llama, Mistral,
Qwen2, Qwen3) run on fused projections with next to no Python between the products, on CUDA with none (`static.py`); any
other architecture runs through its own `forward`. Every row and position has a uniform number of its own, so that a
completion does not depend on which other rows are still running.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.activations import ACT2FN

from lrd import UserError
from lrd.data.tokens import end_ids
from lrd.models.limits import varies
from lrd.models.loading import CausalLM
from lrd.models.shape import Shape
from lrd.rollouts import Completion, pad
from lrd.sampling.draw import draw
from lrd.sampling.static import StaticDecoder

FUSED = ("llama", "mistral", "qwen2", "qwen3")
DROP_BELOW = 0.8  # share of rows still running; copying the cache for fewer finished rows costs more than it saves


class TorchSampler:
    """Completes prompts with its own copy of the weights; `model` gives architecture, dtype and device.

    Log-probabilities cost it nothing, so that it gives them always.
    """

    def __init__(self, model: CausalLM, tokenizer):
        fused = model.config.model_type in FUSED and not (_slides(model.config) or varies(model.config))
        self._device = model.device
        self._decoder = decoder = FusedDecoder(model) if fused else ModelDecoder(model)
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
            found = self._static.sample(ids, mask, uniform, self._eos, temperature, top_p)
        else:
            found = self._step_by_step(ids, mask, uniform, temperature, top_p)
        cut = zip(*(x.tolist() for x in found))
        return [Completion(ids[:n], values[:n], not done) for ids, values, n, done in cut]

    def _step_by_step(
        self, ids: Int[Tensor, "N S"], mask: Bool[Tensor, "N S"], uniform: Float[Tensor, "T N"], temperature, top_p
    ) -> tuple[Int[Tensor, "N L"], Float[Tensor, "N L"], Int[Tensor, " N"], Bool[Tensor, " N"]]:
        """As `StaticDecoder.sample`, with any decoder; L positions until all rows have ended."""
        max_tokens, n = uniform.shape
        length = torch.full((n,), max_tokens, device=self._device)
        ended = torch.zeros(n, dtype=torch.bool, device=self._device)
        rows = torch.arange(n, device=self._device)  # those still in the decoder
        drawn = []  # (rows, their tokens, their log-probabilities) of each position
        logits = self._decoder.prefill(ids, mask, max_tokens)
        for t in range(max_tokens):
            chosen = draw(logits, uniform[t], temperature, top_p)
            drawn.append((rows, chosen, torch.log_softmax(logits, -1).gather(1, chosen[:, None])[:, 0]))
            stops = (chosen[:, None] == self._eos).any(1)
            if stops.any():
                stops &= ~ended[rows]
                length[rows[stops]] = t + 1
                ended[rows[stops]] = True
                running = ~ended[rows]
                alive = int(running.sum())
                if alive == 0:
                    break
                if alive < DROP_BELOW * len(rows):
                    rows, chosen, uniform = rows[running], chosen[running], uniform[:, running]
                    self._decoder.keep(running)
            if t + 1 < max_tokens:
                logits = self._decoder.step(chosen)
        tokens = torch.zeros(n, len(drawn), dtype=torch.long, device=self._device)
        logps = torch.zeros(n, len(drawn), device=self._device)
        for t, (at, chosen, values) in enumerate(drawn):
            tokens[at, t], logps[at, t] = chosen, values
        return tokens, logps, length, ended


def _slides(config) -> bool:
    kinds = getattr(config, "layer_types", None) or []
    return any(kind != "full_attention" for kind in kinds) or (
        not kinds and getattr(config, "sliding_window", None) is not None
    )


@dataclass
class Cache:
    """Keys and values of every layer, `[B, KV heads, W, D]`; what may be attended to; the rotary tables."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Float[Tensor, "B 1 1 W"]  # 0, or the least number where there is padding
    position: Int[Tensor, " B"]  # of the next token; padding does not count
    cos: Float[Tensor, "W D"]
    sin: Float[Tensor, "W D"]  # its first half negated, see `FusedDecoder.forward`

    def keep(self, running: Bool[Tensor, " B"]) -> None:
        """Drops rows."""
        self.keys = [k[running] for k in self.keys]
        self.values = [v[running] for v in self.values]
        self.bias, self.position = self.bias[running], self.position[running]

    def take(self, other: "Cache", rows: Tensor | slice = slice(None)) -> None:
        """Copies rows of a cache of no more columns to the first rows of this one; the rest of it is masked."""
        for mine, theirs in zip([*self.keys, *self.values], [*other.keys, *other.values]):
            chosen = theirs[rows]
            mine[: len(chosen), :, : chosen.shape[2]] = chosen
        bias, position = other.bias[rows], other.position[rows]
        self.bias.fill_(torch.finfo(self.bias.dtype).min)
        self.bias[: len(bias), ..., : bias.shape[-1]] = bias
        self.position.zero_()
        self.position[: len(position)] = position


class FusedDecoder:
    """A Llama-family decoder over a static cache; query, key and value are one product, gate and up another."""

    def __init__(self, model: CausalLM):
        self.config = c = model.config
        self.shape = Shape.from_config(c)
        self.head_dim = self.shape.head_dim
        self.eps = c.rms_norm_eps
        self.activation = ACT2FN[c.hidden_act]
        self.rotary = model.model.rotary_emb
        self.device = model.device
        self.weights: Any = None  # embedding, head, norm, layers

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Fuses the projections of every layer; runs once a rollout."""

        def fuse(prefix: str, names: tuple[str, ...]) -> tuple[Tensor, Tensor | None]:
            bias = [weights[key] for n in names if (key := f"{prefix}.{n}.bias") in weights]
            return columns([weights[f"{prefix}.{n}.weight"] for n in names]), torch.cat(bias) if bias else None

        def columns(parts: list[Tensor]) -> Tensor:  # inputs first: products of few rows are then half as long on CPU
            return torch.cat(parts).t().contiguous()

        embedding = weights["model.embed_tokens.weight"]
        head = columns([weights.get("lm_head.weight", embedding)]), None
        layers = []
        for i in range(self.config.num_hidden_layers):
            layer = f"model.layers.{i}"
            qk_norm = None
            if f"{layer}.self_attn.q_norm.weight" in weights:
                q_norm, k_norm = (weights[f"{layer}.self_attn.{n}_norm.weight"] for n in "qk")
                q_norm = q_norm.expand(self.config.num_attention_heads, -1)
                qk_norm = torch.cat([q_norm, k_norm.expand(self.config.num_key_value_heads, -1)])
            layers.append(
                (
                    weights[f"{layer}.input_layernorm.weight"],
                    fuse(f"{layer}.self_attn", ("q_proj", "k_proj", "v_proj")),
                    qk_norm,
                    fuse(f"{layer}.self_attn", ("o_proj",)),
                    weights[f"{layer}.post_attention_layernorm.weight"],
                    fuse(f"{layer}.mlp", ("gate_proj", "up_proj")),
                    fuse(f"{layer}.mlp", ("down_proj",)),
                )
            )
        fresh = embedding, head, weights["model.norm.weight"], layers
        if self.device.type != "cuda":
            self.weights = fresh
        elif self.weights is None:
            self.weights = _copied(fresh)
        else:  # to where they were: captured steps read them there
            for mine, theirs in zip(_tensors(self.weights), _tensors(fresh)):
                mine.copy_(theirs)

    def bytes(self, rows: int, width: int) -> int:
        """Of the keys and values of such a cache."""
        return self.shape.cached * rows * width * self.weights[0].element_size()

    def empty(self, rows: int, width: int) -> Cache:
        """Room for `width` tokens a row."""
        embedding = self.weights[0]
        shape = (rows, self.config.num_key_value_heads, width, self.head_dim)
        keys, values = (
            [torch.zeros(shape, dtype=embedding.dtype, device=self.device) for _ in self.weights[-1]] for _ in range(2)
        )
        bias = torch.zeros(rows, 1, 1, width, dtype=embedding.dtype, device=self.device)
        position = torch.zeros(rows, dtype=torch.long, device=self.device)
        cos, sin = self.rotary(embedding, torch.arange(width, device=self.device)[None])
        half = self.head_dim // 2
        return Cache(keys, values, bias, position, cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), -1))

    def prefill(self, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"], room: int) -> Float[Tensor, "B V"]:
        """Reads the prompts and makes room for `room` more tokens; returns the next token's logits."""
        rows, width = ids.shape
        self.cache = self.empty(rows, width + room)
        dtype = self.cache.bias.dtype
        self.cache.bias[:, 0, 0, :width].masked_fill_(~mask, torch.finfo(dtype).min)
        self.cache.position = mask.sum(1)
        self.filled = width
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        future = torch.ones(width, width, dtype=torch.bool, device=self.device).triu(1)
        causal = torch.zeros(width, width, dtype=dtype, device=self.device).masked_fill_(future, torch.finfo(dtype).min)
        # Clamped: the sum of two masks must stay finite, or a row of padding would turn into NaN.
        bias = (self.cache.bias[..., :width] + causal).clamp(min=torch.finfo(dtype).min)
        return self.forward(ids, positions, self.cache, slice(0, width), bias)

    def step(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Appends one token a row; returns the next token's logits."""
        at = slice(self.filled, self.filled + 1)
        logits = self.forward(
            tokens[:, None], self.cache.position[:, None], self.cache, at, self.cache.bias[..., : at.stop]
        )
        self.cache.position = self.cache.position + 1
        self.filled = at.stop
        return logits

    def keep(self, running: Bool[Tensor, " B"]) -> None:
        """Drops the rows that have ended."""
        self.cache.keep(running)

    def forward(
        self,
        ids: Int[Tensor, "B S"],
        positions: Int[Tensor, "B S"],
        cache: Cache,
        at: slice | Int[Tensor, " S"],
        bias: Tensor,
    ) -> Float[Tensor, "B V"]:
        """The next token's logits. Keys and values go to columns `at` of the cache; given as a slice, what lies behind
        it is not read, given as a tensor, all columns are.
        """
        c, (rows, width) = self.config, ids.shape
        heads, shared = c.num_attention_heads, c.num_key_value_heads
        embedding, head, norm, layers = self.weights
        x = embedding[ids.flatten()]
        cos, sin = cache.cos[positions][:, :, None], cache.sin[positions][:, :, None]
        scale = 1 / math.sqrt(self.head_dim)
        for layer, keys, values in zip(layers, cache.keys, cache.values):
            pre, qkv, qk_norm, out, post, gate_up, down = layer
            h = _linear(F.rms_norm(x, pre.shape, pre, self.eps), qkv).view(rows, width, -1, self.head_dim)
            qk, v = h.split((heads + shared, shared), 2)
            if qk_norm is not None:
                qk = F.rms_norm(qk, (self.head_dim,), None, self.eps) * qk_norm
            # Rotary position embedding, halves rotated (Su et al. 2021); the sign of the first half stands in `sin`.
            qk = torch.addcmul(qk * cos, qk.roll(self.head_dim // 2, -1), sin)
            q, k = qk.split((heads, shared), 2)
            if isinstance(at, slice):
                keys[:, :, at] = k.transpose(1, 2)
                values[:, :, at] = v.transpose(1, 2)
                k, v = keys[:, :, : at.stop], values[:, :, : at.stop]
            else:
                k, v = keys.index_copy_(2, at, k.transpose(1, 2)), values.index_copy_(2, at, v.transpose(1, 2))
            if width == 1:  # the query heads that share a key head read it together
                q = q.reshape(rows, shared, heads // shared, self.head_dim)
                a = F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
            else:
                a = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, bias, scale=scale, enable_gqa=True)
                a = a.transpose(1, 2)
            x = x + _linear(a.reshape(rows * width, -1), out)
            gate, up = _linear(F.rms_norm(x, post.shape, post, self.eps), gate_up).chunk(2, -1)
            x = x + _linear(self.activation(gate) * up, down)
        last = x.view(rows, width, -1)[:, -1]
        return _linear(F.rms_norm(last, norm.shape, norm, self.eps), head).float()


def _copied(weights: Any) -> Any:
    """The same nest of tuples and lists with copies of its tensors."""
    if isinstance(weights, tuple | list):
        return type(weights)(_copied(part) for part in weights)
    return weights if weights is None else weights.clone()


def _tensors(weights: Any) -> Iterable[Tensor]:
    """The tensors of a nest of tuples and lists, in order."""
    if isinstance(weights, tuple | list):
        for part in weights:
            yield from _tensors(part)
    elif weights is not None:
        yield weights


def _linear(x: Float[Tensor, "B I"], layer: tuple[Tensor, Tensor | None]) -> Float[Tensor, "B O"]:
    weight, bias = layer
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


class ModelDecoder:
    """Any causal LM through its own `forward` and cache."""

    def __init__(self, model: CausalLM):
        self.model = copy.deepcopy(model).requires_grad_(False)
        for module in list(self.model.modules()):  # the weights come merged: adapters give way to their base layers
            for name, child in list(module.named_children()):
                if hasattr(child, "get_base_layer"):
                    setattr(module, name, child.get_base_layer())
        try:
            apart = self._apart()
        except RuntimeError as error:
            raise UserError(f"engine 'torch' cannot sample from a {model.config.model_type} model: {error}") from error
        if not apart < torch.finfo(model.dtype).eps ** 0.5:
            raise UserError(
                f"engine 'torch' cannot sample from a {model.config.model_type} model: behind padding and from its "
                f"cache it gives other logits than in one piece"
            )

    @torch.no_grad()
    def _apart(self) -> float:
        """How far logits of a padded prompt and the tokens behind it are from those of the text read in one piece."""
        model, device = self.model, self.model.device
        ids = torch.arange(12, device=device)[None] % model.config.get_text_config().vocab_size
        whole = model.get_output_embeddings()(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
        mask = torch.arange(11, device=device)[None] > 2
        first = self.prefill(F.pad(ids[:, :8], (3, 0)), mask, 4)
        parts = torch.cat([first, *(self.step(ids[:, t]) for t in range(8, 12))])
        del self.cache
        whole = whole[0, 7:].float()
        return ((parts - whole).norm(dim=-1) / whole.norm(dim=-1)).median().item()  # experts may be chosen otherwise

    def load(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights, strict=False)

    def prefill(self, ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"], room: int) -> Float[Tensor, "B V"]:
        self.cache, self.mask = DynamicCache(config=self.model.config), mask
        return self._forward(ids, (mask.cumsum(1) - 1).clamp(min=0))

    def step(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        self.mask = F.pad(self.mask, (0, 1), value=True)
        return self._forward(tokens[:, None], self.mask.sum(1, keepdim=True) - 1)

    def keep(self, running: Bool[Tensor, " B"]) -> None:
        self.cache.batch_select_indices(running.nonzero()[:, 0])
        self.mask = self.mask[running]

    def _forward(self, ids: Tensor, positions: Tensor) -> Float[Tensor, "B V"]:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask.long(),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()
