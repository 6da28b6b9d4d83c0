"""What loading makes of a checkpoint. What it refuses is tested with the checks of a cell's input, in train."""

import pytest
import torch

from lrd import UserError
from lrd.models.loading import load_model

CPU = torch.device("cpu")


def test_models_come_in_evaluation_mode(checkpoint):
    assert not load_model(checkpoint(), "student", "float32", CPU).training


def test_a_model_that_scales_its_logits_is_refused(checkpoint, tmp_path):
    """Cohere multiplies its logits: a head's product alone would be another distribution."""
    from transformers import AutoModelForCausalLM, CohereConfig

    config = CohereConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        logit_scale=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does more to its logits"):
        load_model(str(tmp_path), "student", "float32", CPU)
