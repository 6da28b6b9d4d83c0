"""What a shape decides, by hand."""

import pytest

from lrd.analysis.budget import capacity
from lrd.models.shape import Shape, published


def test_rank_one_of_qwen3_is_1_09_million_parameters():
    about = published()["Qwen/Qwen3-1.7B-Base"]
    shape = Shape(**{name: about[name] for name in Shape.__dataclass_fields__})
    a_layer = (2048 + 2048) + 2 * (2048 + 1024) + (2048 + 2048) + 3 * (2048 + 6144)
    assert a_layer == 38912
    assert shape.adapter_parameters(1) == 28 * a_layer == 1_089_536
    assert shape.adapter_parameters(256) == 256 * 1_089_536
    assert shape.adapter_parameters(1, ["down_proj"]) == 28 * 8192
    assert shape.adapter_parameters(2, ["q_proj"], [0, 27]) == 2 * 2 * (2048 + 2048)
    assert shape.parameters == 1_720_574_976
    assert shape.cached == 28 * 2 * 1024
    assert capacity(1_089_536) == 2_179_072
    assert 2_179_072 / 1600 > 1300  # bits an episode, to fill rank 1


def test_parameters_of_a_small_model_by_hand():
    shape = Shape(96, 256, 2, 4, 2, 24, 35, True)
    a_layer = (96 + 96) + 2 * (96 + 48) + (96 + 96) + 3 * (96 + 256)
    assert shape.adapter_parameters(4) == 4 * 2 * a_layer == 13824
    weights = 2 * 96 * 96 + 2 * 96 * 48 + 3 * 96 * 256 + 2 * 96 + 2 * 24
    assert shape.parameters == 35 * 96 + 2 * weights + 96 == 206688


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "neox"])
def test_a_shape_is_read_from_any_configuration(kind, pretrained):
    config = pretrained(kind).config
    shape = Shape.from_config(config)
    assert (shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads) == (32, 2, 4)
    assert shape.queries == 4 * shape.head_dim and shape.vocab_size == config.vocab_size
    if kind == "qwen3":
        assert shape.head_dim != 8 and shape.keys == 2 * shape.head_dim
        assert shape.parameters == pretrained(kind).num_parameters()
    if kind in ("gpt2", "neox"):
        assert shape.keys == shape.queries == 32
