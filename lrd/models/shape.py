"""What a decoder's shape decides: its linear maps, its parameters, an adapter's, a key-value cache's. Torch-free."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lrd import ROOT
from lrd.cell import Cell


@dataclass(frozen=True)
class Shape:
    """What decides the size of a decoder of the Llama family, under the names of its `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool

    @classmethod
    def from_config(cls, config: Any) -> "Shape":
        """The shape in a transformers configuration; what it leaves open is as in GPT-2 and Llama."""
        hidden, heads = config.hidden_size, config.num_attention_heads
        return cls(
            hidden_size=hidden,
            intermediate_size=getattr(config, "intermediate_size", None) or 4 * hidden,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            num_key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            vocab_size=config.vocab_size,
            tie_word_embeddings=config.tie_word_embeddings,
        )

    @property
    def queries(self) -> int:
        """Values of all query heads of a layer, a token."""
        return self.num_attention_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Values of all key heads of a layer, a token; its value heads have as many."""
        return self.num_key_value_heads * self.head_dim

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a layer's linear maps."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, self.queries),
            "k_proj": (hidden, self.keys),
            "v_proj": (hidden, self.keys),
            "o_proj": (self.queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def parameters(self) -> int:
        """All weights of a Qwen3 model: embedding, linear maps, two norms a layer and its q's and k's, a last norm."""
        layer = sum(a * b for a, b in self.linear.values()) + 2 * self.hidden_size + 2 * self.head_dim
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return embeddings + self.num_hidden_layers * layer + self.hidden_size

    def adapter_parameters(
        self, rank: int, targets: Sequence[str] = Cell.lora_targets, layers: Sequence[int] = ()
    ) -> int:
        """r · Σ (in + out) over the adapted maps: W + s·BA with A [r, in] and B [out, r] (Hu et al. 2022).

        `layers` are the adapted ones, all if there are none. Raises `KeyError` for a target not in `linear`.
        """
        return rank * (len(layers) or self.num_hidden_layers) * sum(sum(self.linear[name]) for name in targets)

    @property
    def cached(self) -> int:
        """Values of a token in the key-value cache of all layers."""
        return 2 * self.num_hidden_layers * self.keys


def published() -> dict[str, dict[str, Any]]:
    """Configurations of models that are too large to be at hand, by name, from `book/models.toml`."""
    return tomllib.loads((ROOT / "book" / "models.toml").read_text(encoding="utf-8"))
