"""Decoding with any causal LM, through its own `forward` and cache."""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from lrd import UserError
from lrd.models.loading import CausalLM


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
