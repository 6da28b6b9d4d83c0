"""Decoding with models of the Llama family: fused projections, and next to no Python between the products."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.activations import ACT2FN

from lrd.models.limits import varies
from lrd.models.loading import CausalLM
from lrd.models.shape import Shape

FUSED = ("llama", "mistral", "qwen2", "qwen3")


def fits(config: Any) -> bool:
    """Whether a model of this configuration can be decoded so: full attention, and rotary frequencies that stay."""
    sliding = ["sliding_attention"] if getattr(config, "sliding_window", None) is not None else []
    kinds = getattr(config, "layer_types", None) or sliding
    return config.model_type in FUSED and all(kind == "full_attention" for kind in kinds) and not varies(config)


@dataclass
class Cache:
    """Keys and values of every layer, `[B, KV heads, W, D]`; what may be attended to; the rotary tables."""

    keys: list[Tensor]
    values: list[Tensor]
    bias: Float[Tensor, "B 1 1 W"]  # 0, or the least number where there is padding
    position: Int[Tensor, " B"]  # of the next token; padding does not count
    cos: Float[Tensor, "W D"]
    sin: Float[Tensor, "W D"]  # its first half negated, see `FusedDecoder.forward`

    def take(self, other: "Cache", rows: Tensor | slice = slice(None)) -> None:
        """Copies rows of a cache of no more columns to the first rows of this one; the rest of it is masked."""
        for to, origin in zip([*self.keys, *self.values], [*other.keys, *other.values]):
            chosen = origin[rows]
            to[: len(chosen), :, : chosen.shape[2]] = chosen
        bias, position = other.bias[rows], other.position[rows]
        self.bias.fill_(torch.finfo(self.bias.dtype).min)
        self.bias[: len(bias), ..., : bias.shape[-1]] = bias
        self.position.zero_()
        self.position[: len(position)] = position


class Linear(NamedTuple):
    """A linear map, inputs first: products of few rows are then half as long on a CPU."""

    weight: Float[Tensor, "I O"]
    bias: Float[Tensor, " O"] | None


class Layer(NamedTuple):
    """Weights of a decoder layer; `pre` and `post` are the norms before attention and before the MLP."""

    pre: Tensor
    qkv: Linear
    qk_norm: Float[Tensor, "H D"] | None  # of query and key heads, one a row
    out: Linear
    post: Tensor
    gate_up: Linear
    down: Linear


class FusedDecoder:
    """A Llama-family decoder over a static cache; query, key and value are one product, gate and up another."""

    def __init__(self, model: CausalLM):
        self.shape = Shape.from_config(model.config)
        self.eps = model.config.rms_norm_eps
        self.activation = ACT2FN[model.config.hidden_act]
        self.rotary = model.model.rotary_emb
        self.device = model.device
        self.weights: Any = None  # embedding, head, last norm, layers
        self._places: dict[str, Tensor] = {}

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Fuses the projections of every layer; runs once a rollout."""

        def plain(name: str) -> Tensor:
            return self._placed(f"{name}.weight", weights[f"{name}.weight"])

        def fused(*names: str) -> Linear:
            weight = torch.cat([weights[f"{name}.weight"] for name in names]).t().contiguous()
            bias = [weights[f"{name}.bias"] for name in names if f"{name}.bias" in weights]
            placed = self._placed(f"{names[0]}.bias", torch.cat(bias)) if bias else None
            return Linear(self._placed(f"{names[0]}.fused", weight), placed)

        def layer(at: str) -> Layer:
            attention, mlp, qk_norm = f"{at}.self_attn", f"{at}.mlp", None
            if f"{attention}.q_norm.weight" in weights:
                heads = ("q", self.shape.num_attention_heads), ("k", self.shape.num_key_value_heads)
                norms = [weights[f"{attention}.{name}_norm.weight"].expand(n, -1) for name, n in heads]
                qk_norm = self._placed(f"{attention}.qk_norm", torch.cat(norms))
            return Layer(
                pre=plain(f"{at}.input_layernorm"),
                qkv=fused(f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"),
                qk_norm=qk_norm,
                out=fused(f"{attention}.o_proj"),
                post=plain(f"{at}.post_attention_layernorm"),
                gate_up=fused(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
                down=fused(f"{mlp}.down_proj"),
            )

        embedding = plain("model.embed_tokens")
        head = fused("lm_head" if "lm_head.weight" in weights else "model.embed_tokens")
        layers = [layer(f"model.layers.{i}") for i in range(self.shape.num_hidden_layers)]
        self.weights = embedding, head, plain("model.norm"), layers

    def _placed(self, name: str, fresh: Tensor) -> Tensor:
        """The tensor; on CUDA where the first of its name was, as captured steps read it there."""
        if self.device.type != "cuda":
            return fresh
        if name not in self._places:
            self._places[name] = torch.empty_like(fresh)
        return self._places[name].copy_(fresh)

    def bytes(self, rows: int, width: int) -> int:
        """What the keys and values of such a cache take."""
        return self.shape.cached * rows * width * self.weights[0].element_size()

    def empty(self, rows: int, width: int) -> Cache:
        """Room for `width` tokens a row."""
        embedding, head_dim = self.weights[0], self.shape.head_dim
        shape = (rows, self.shape.num_key_value_heads, width, head_dim)
        keys, values = (
            [torch.zeros(shape, dtype=embedding.dtype, device=self.device) for _ in self.weights[-1]] for _ in range(2)
        )
        bias = torch.zeros(rows, 1, 1, width, dtype=embedding.dtype, device=self.device)
        position = torch.zeros(rows, dtype=torch.long, device=self.device)
        cos, sin = self.rotary(embedding, torch.arange(width, device=self.device)[None])
        half = head_dim // 2
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
        cache = self.cache
        cache.keys, cache.values = ([x[running] for x in layers] for layers in (cache.keys, cache.values))
        cache.bias, cache.position = cache.bias[running], cache.position[running]

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
        (rows, width), head_dim = ids.shape, self.shape.head_dim
        heads, shared = self.shape.num_attention_heads, self.shape.num_key_value_heads
        embedding, head, norm, layers = self.weights
        x = embedding[ids.flatten()]
        cos, sin = cache.cos[positions][:, :, None], cache.sin[positions][:, :, None]
        for layer, keys, values in zip(layers, cache.keys, cache.values):
            pre, qkv, qk_norm, out, post, gate_up, down = layer
            h = _linear(F.rms_norm(x, pre.shape, pre, self.eps), qkv).view(rows, width, -1, head_dim)
            qk, v = h.split((heads + shared, shared), 2)
            if qk_norm is not None:
                qk = F.rms_norm(qk, (head_dim,), None, self.eps) * qk_norm
            # Rotary position embedding, halves rotated (Su et al. 2021); the sign of the first half stands in `sin`.
            qk = torch.addcmul(qk * cos, qk.roll(head_dim // 2, -1), sin)
            q, k = qk.split((heads, shared), 2)
            if isinstance(at, slice):
                keys[:, :, at] = k.transpose(1, 2)
                values[:, :, at] = v.transpose(1, 2)
                k, v = keys[:, :, : at.stop], values[:, :, : at.stop]
            else:
                k, v = keys.index_copy_(2, at, k.transpose(1, 2)), values.index_copy_(2, at, v.transpose(1, 2))
            x = x + _linear(_attend(q, k, v, bias).reshape(rows * width, -1), out)
            gate, up = _linear(F.rms_norm(x, post.shape, post, self.eps), gate_up).chunk(2, -1)
            x = x + _linear(self.activation(gate) * up, down)
        last = x.view(rows, width, -1)[:, -1]
        return _linear(F.rms_norm(last, norm.shape, norm, self.eps), head).float()


def _attend(
    q: Float[Tensor, "B S H D"], k: Float[Tensor, "B K W D"], v: Float[Tensor, "B K W D"], bias: Tensor
) -> Tensor:
    """Attention of H query heads to K key heads, `[B, S, H, D]` in order; of one token, they read a key together."""
    rows, width, _, head_dim = q.shape
    if width == 1:
        return F.scaled_dot_product_attention(q.reshape(rows, k.shape[1], -1, head_dim), k, v, bias)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, bias, enable_gqa=True).transpose(1, 2)


def _linear(x: Float[Tensor, "B I"], layer: tuple[Tensor, Tensor | None]) -> Float[Tensor, "B O"]:
    weight, bias = layer
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
