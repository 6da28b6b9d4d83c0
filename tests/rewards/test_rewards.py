"""What every reward does."""

import pytest
import torch

from lrd import UserError, rewards

CPU = torch.device("cpu")


@pytest.mark.parametrize("regime, field, role", [("distillation", "teacher", "teacher"), ("process", "prm", "PRM")])
def test_a_missing_model_is_a_user_error(regime, field, role, make_cell, tokenizer):
    with pytest.raises(UserError, match=rf"{role} '\./models/tiny/no_{field}'.*lrd testbed tiny"):
        rewards.load(make_cell(regime=regime, **{field: f"./models/tiny/no_{field}"}), tokenizer, CPU)
