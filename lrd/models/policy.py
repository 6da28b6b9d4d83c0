"""The student that is trained and the reference it must not stray from: LoRA or full fine-tuning of any causal LM."""

import contextlib
import copy
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lrd.cell import Cell
from lrd.models import placement
from lrd.models.loading import CausalLM, load_model, load_tokenizer
from lrd.models.logps import Recompute, TokenLogps, token_logps
from lrd.names import on_hub
from lrd.rollouts import Rollouts


def seed_of(*parts) -> int:
    """A seed of its own for each use of randomness, so that drawing from one never moves another."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7])


class Policy:
    """Student and reference of one cell.

    The reference is the student with its adapter off. Without an adapter, or with one whose start changes the frozen
    weights (PiSSA, OLoRA), it is a frozen copy.
    """

    def __init__(self, cell: Cell, device: torch.device):
        self.cell, self.device = cell, device
        self._is_off = False  # the adapter
        self.tokenizer = load_tokenizer(cell.student, "student")
        if cell.rank is None:
            self.model = load_model(cell.student, "student", cell.master_dtype, device)
            self.reference = load_model(cell.student, "student", cell.dtype, device).requires_grad_(False)
        else:
            student = load_model(cell.student, "student", cell.dtype, device)
            if on_hub(cell.student):  # what an adapter's configuration names, instead of the cache of this machine
                student.name_or_path = cell.student
            self.reference = copy.deepcopy(student).requires_grad_(False) if placement.moves_base(cell) else student
            with torch.random.fork_rng():
                torch.manual_seed(seed_of("initialization", cell.seed))
                self.model = placement.add(student, cell, cell.rank)

    def logps(self, rollouts: Rollouts) -> TokenLogps:
        """The learner's log-probabilities of a batch, with gradient."""
        if isinstance(self.model, PeftModel) and self.cell.dtype == "float32":
            # The same function and gradient as adding the adapters' outputs, for a fraction of the products, since a
            # batch has more tokens than a layer has rows. In bf16 the sum would round the adapter away.
            weights, state = {name: _merged(layer) for name, layer in self._adapted.items()}, self._without_adapter
            return token_logps(self.base, rollouts, self.cell.logp_temperature, weights, self._recompute, state)
        # Mixed precision without autocast: what is trained is rounded once a step, as the sampler's weights are.
        dtype = getattr(torch, self.cell.dtype)
        weights = {name: p.to(dtype) for name, p in self.base.named_parameters() if p.requires_grad}
        return token_logps(self.base, rollouts, self.cell.logp_temperature, weights, self._recompute)

    @property
    def _recompute(self) -> Recompute:
        return Recompute(self.cell.micro_batch, self.cell.checkpointing == "layers")

    @functools.cached_property
    def _adapted(self) -> dict[str, LoraLayer]:
        """Adapted layers by the name of their frozen weight."""
        layers = self.base.named_modules()
        return {f"{name}.base_layer.weight": layer for name, layer in layers if isinstance(layer, LoraLayer)}

    @torch.no_grad()
    def reference_logps(self, rollouts: Rollouts) -> Float[Tensor, "N T"]:
        """The frozen base's log-probabilities of a batch."""
        with self._without_adapter():
            return token_logps(self.reference, rollouts, self.cell.logp_temperature).logps

    @contextlib.contextmanager
    def _without_adapter(self) -> Iterator[None]:
        """Adapters off, as in PEFT's `disable_adapter`, which first asks every layer for its state, for a small model
        longer than a layer takes. Within itself it changes nothing.
        """
        tuner: Any = self.model.base_model if isinstance(self.model, PeftModel) and not self._is_off else None
        if tuner is not None:
            tuner.disable_adapter_layers()
            self._is_off = True
        try:
            yield
        finally:
            if tuner is not None:
                tuner.enable_adapter_layers()
                self._is_off = False

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """What the optimizer moves, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def base(self) -> CausalLM:
        """The student as `from_pretrained` made it: its configuration and module structure."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The student's weights under their original names, adapters added into temporaries: W + s·BA.

        Never merged in place: a bf16 base that is merged and unmerged every step drifts.
        """
        dtype, adapted = getattr(torch, self.cell.dtype), self._adapted
        for name, p in self.base.named_parameters():
            if "lora_" not in name:
                weight = _merged(adapted[name]) if name in adapted else p
                yield name.replace(".base_layer.", "."), weight.to(dtype, copy=p.requires_grad)

    def save(self, path) -> None:
        """The adapter in PEFT's format, or the whole student in the Hub's; safetensors either way."""
        # Embeddings are never adapted, and whether to save them PEFT would ask the Hub.
        plain: dict[str, Any] = {"save_embedding_layers": False} if isinstance(self.model, PeftModel) else {}
        self.model.save_pretrained(path, **plain)
        self.tokenizer.save_pretrained(path)


def _merged(layer: Any) -> Tensor:
    """W + s·BA of an adapted layer; with DoRA its rows scaled to the learned magnitudes (Liu et al. 2024, eq. 5).

    As in PEFT the norms that they are divided by are constants of the gradient (§4.3 there).
    """
    weight = layer.get_base_layer().weight + layer.get_delta_weight("default")
    if "default" not in layer.lora_magnitude_vector:
        return weight
    inputs = 0 if layer.fan_in_fan_out else 1
    scale = layer.lora_magnitude_vector["default"].weight / weight.detach().norm(dim=inputs)
    return weight * scale.unsqueeze(inputs)
