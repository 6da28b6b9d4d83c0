"""Which engine a cell gets, and vLLM's behind a stand-in for the package: what it is asked for and given."""

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from lrd import ROOT, UserError, sampling
from lrd.cell import Cell
from lrd.data.problems import held_out
from lrd.models.policy import Policy
from lrd.rollouts import Completion
from lrd.sampling import Sampler, vllm as engine
from lrd.sampling.torch import TorchSampler
from lrd.train.evaluate import encode

WORDS = ("embedding", "head")


class Answer(SimpleNamespace):
    """What vLLM gives for a prompt: `ids`, cut or ended, with log-probabilities where they were asked for."""

    def __init__(self, ids, params):
        logprobs = [{token: SimpleNamespace(logprob=-0.5 * token)} for token in ids] if params.logprobs == 0 else None
        reason = "stop" if ids[-1] in params.stop_token_ids else "length"
        super().__init__(outputs=[SimpleNamespace(token_ids=ids, logprobs=logprobs, finish_reason=reason)])


class LLM:
    """Keeps its arguments; completes a prompt by its last token, counted up to the cap."""

    def __init__(self, **arguments):
        self.arguments, self.asked, self.ended, self._finalizer = arguments, [], 0, None
        self.llm_engine = SimpleNamespace(engine_core=self)
        self.model = SimpleNamespace(named_parameters=lambda: [(name, None) for name in WORDS])
        self.model.load_weights = lambda weights: {name for name, _ in weights}

    def shutdown(self):
        self.ended += 1

    def apply_model(self, function):
        return [function(self.model)]

    def generate(self, prompts, params, use_tqdm):
        self.asked.append((prompts, params))
        return [
            Answer([p["prompt_token_ids"][-1] + 1 + i for i in range(how.max_tokens)], how)
            for p, how in zip(prompts, params, strict=True)
        ]


@pytest.fixture
def package(monkeypatch):
    fake = ModuleType("vllm")
    fake.LLM, fake.SamplingParams, fake.TokensPrompt = LLM, SimpleNamespace, dict
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.25.1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return fake


@pytest.fixture
def sampler(package, make_cell, pretrained, tokenizer):
    cell = make_cell(engine="vllm", eval_batch=5, eval_problems=9)
    return engine.VLLMSampler(cell, pretrained(), tokenizer)


def test_it_is_an_engine(sampler):
    assert isinstance(sampler, Sampler)


def test_it_takes_a_fixed_share_of_the_card(sampler, make_cell):
    """16 rollouts are more than 5 problems; 16 + 2048 tokens are cut to the model's 256.

    A token's cache: keys and values of 2 layers, 2 heads of 16, fp32.
    """
    arguments = sampler._llm.arguments
    assert arguments["max_num_seqs"] == 16 and arguments["max_model_len"] == 256
    assert arguments["kv_cache_memory_bytes"] == 16 * 256 * (2 * 2 * 2 * 16 * 4)
    assert arguments["load_format"] == "dummy" and not arguments["enable_prefix_caching"]


def test_the_next_engine_ends_the_last_and_no_other(sampler, make_cell, pretrained, tokenizer):
    second, third = (engine.VLLMSampler(make_cell(engine="vllm"), pretrained(), tokenizer) for _ in range(2))
    assert [s._llm.ended for s in (sampler, second, third)] == [1, 1, 0]
    del third._llm._finalizer  # an older version leaves the others as they are
    engine.VLLMSampler(make_cell(engine="vllm"), pretrained(), tokenizer)
    assert not third._llm.ended


def test_each_row_has_a_seed_of_its_own_and_greedy_rows_none(sampler):
    sampler.sample([[3], [4], [5]], max_tokens=2, temperature=0.7, top_p=0.95, seed=40)
    sampler.sample([[3], [4]], max_tokens=2, temperature=0)
    (prompts, drawn), (_, greedy) = sampler._llm.asked
    assert prompts == [{"prompt_token_ids": [i]} for i in (3, 4, 5)]
    assert [how.seed for how in drawn] == [40, 41, 42] and {how.top_p for how in drawn} == {0.95}
    assert [how.seed for how in greedy] == [None, None] and {how.top_p for how in greedy} == {1.0}
    assert all(how.logprobs is None and not how.detokenize for how in drawn + greedy)


def test_completions_say_how_they_ended(sampler, tokenizer):
    eos = tokenizer.eos_token_id
    got = sampler.sample([[eos - 2], [eos + 4]], max_tokens=2, temperature=0.7, logps=True)
    assert got == [
        Completion([eos - 1, eos], [-0.5 * (eos - 1), -0.5 * eos], False),
        Completion([eos + 5, eos + 6], [-0.5 * (eos + 5), -0.5 * (eos + 6)], True),
    ]
    assert sampler.sample([[eos - 2]], max_tokens=2, temperature=0.7) == [Completion([eos - 1, eos], None, False)]


def test_vllm_draws_from_our_nucleus_and_does_the_rest_itself(sampler, monkeypatch, make_cell, pretrained, tokenizer):
    """Without the place where it looks for one, as above, the engine starts all the same."""
    usual = ModuleType("vllm.v1.sample.ops.topk_topp_sampler")
    usual.apply_top_k_top_p = lambda logits, k, p: logits + 1
    place = ModuleType("vllm.v1.worker.gpu.sample")
    place.sampler = SimpleNamespace(apply_top_k_top_p=usual.apply_top_k_top_p)
    for name in ("vllm.v1", "vllm.v1.sample", "vllm.v1.sample.ops", "vllm.v1.worker", "vllm.v1.worker.gpu"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, usual.__name__, usual)
    monkeypatch.setitem(sys.modules, place.__name__, place)
    engine.VLLMSampler(make_cell(engine="vllm"), pretrained(), tokenizer)
    draw, half = place.sampler.apply_top_k_top_p, torch.tensor([0.5])
    assert torch.isfinite(draw(torch.tensor([[0.0, 2.0, 1.0]]), None, half)).tolist() == [[False, True, False]]
    theirs = [draw(torch.zeros(1, 3), torch.tensor([2]), half), draw(torch.zeros(1, 3), None, None)]
    assert all(torch.equal(logits, torch.ones(1, 3)) for logits in theirs)


def test_weights_that_are_missing_are_no_silence(sampler):
    sampler.sync((name, torch.zeros(1)) for name in WORDS)
    with pytest.raises(RuntimeError, match="no weights for head"):
        sampler.sync([("embedding", torch.zeros(1))])


def test_a_prompt_that_the_engine_has_no_room_for(sampler):
    with pytest.raises(UserError, match="a prompt has 250 tokens and may be completed by 16"):
        sampler.sample([[1] * 250], max_tokens=16, temperature=0)


@pytest.mark.parametrize("version", ["0.24.0", "0.34.0", "1.0"])
def test_an_untried_version_is_a_user_error(version, package, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    with pytest.raises(UserError, match=rf"vLLM {version} is installed; .* 0\.25 up to"):
        engine.check()


@pytest.mark.parametrize("version", ["0.25.0", "0.25.1", "0.33.0"])
def test_tried_versions_pass(version, package, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    engine.check()


def test_a_machine_without_a_gpu_is_a_user_error(package, monkeypatch, make_cell, pretrained, tokenizer):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="'vllm' decodes on a GPU, and PyTorch finds none here; --set engine=torch"):
        engine.VLLMSampler(make_cell(engine="vllm"), pretrained(), tokenizer)


def test_without_vllm_a_cell_that_asks_for_it_is_refused(make_cell, pretrained, tokenizer, monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    for refuse in (sampling.check, lambda cell: sampling.load(cell, pretrained(), tokenizer)):
        with pytest.raises(
            UserError, match="needs vLLM, which is not installed: pip install .*, or --set engine=torch"
        ):
            refuse(make_cell(engine="vllm"))
    sampling.check(make_cell())
    assert isinstance(sampling.load(make_cell(), pretrained(), tokenizer), TorchSampler)


def test_an_unknown_engine_is_a_user_error(make_cell):
    with pytest.raises(UserError, match=r"unknown engine 'vlm' \(did you mean vllm\?\)"):
        make_cell(engine="vlm")


def partings(model, prompts, found, others):
    """Nats between the two tokens, to `model`, wherever completions of a prompt part."""
    margins = []
    for prompt, a, b in zip(prompts, found, others, strict=True):
        parted = next((i for i, (x, y) in enumerate(zip(a.ids, b.ids)) if x != y), None)
        if parted is not None:
            context = torch.tensor([prompt + a.ids[:parted]], device=model.device)
            with torch.no_grad():
                logps = model(context).logits[0, -1].float().log_softmax(-1)
            margins.append(float((logps[a.ids[parted]] - logps[b.ids[parted]]).abs()))
        else:
            assert a.ids == b.ids
    return margins


@pytest.mark.skipif(not torch.cuda.is_available(), reason="vLLM decodes on a GPU, and there is none here")
def test_greedy_decoding_agrees_with_pytorchs_to_the_first_near_tie():
    """Both round to bf16, in another order: completions may part only where two tokens are about as likely."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    cell = Cell.load("small", regime="outcome", rank=16, seed=0, engine="vllm", eval_problems=200, eval_batch=200)
    if not (ROOT / cell.student).is_dir():
        pytest.skip("`lrd testbed small` trains the checkpoint that this test decodes with")
    policy = Policy(cell, torch.device("cuda"))
    prompts = [encode(p, cell, policy.tokenizer) for p in held_out(cell.eval_data, cell.eval_problems)]
    found = {}
    for name, sampler in (
        ("torch", TorchSampler(policy.base, policy.tokenizer)),
        ("vllm", engine.VLLMSampler(cell, policy.base, policy.tokenizer)),
    ):
        sampler.sync(policy.weights())
        found[name] = sampler.sample(prompts, max_tokens=cell.max_completion_tokens, temperature=0)
    margins = partings(policy.base, prompts, found["torch"], found["vllm"])
    print(f"{len(margins)} of {len(prompts)} completions part, at margins up to {max(margins, default=0):.3f} nats")
    assert len(margins) < 0.3 * len(prompts) and max(margins, default=0) < 0.3


@pytest.mark.slow
def test_two_real_engines_in_a_row(monkeypatch, make_cell, checkpoint, pretrained, tokenizer):
    """vLLM itself, where it is: it decodes with the weights that it was given last, each row by itself.

    The second engine starts while the name still holds the first, as in a loop of a notebook.
    """
    platforms = pytest.importorskip("vllm.platforms", reason="vLLM is not installed")
    if gpu := torch.cuda.is_available():
        device, dtype, near = "cuda", torch.bfloat16, 0.3
    elif platforms.current_platform.is_cpu():
        device, dtype, near = "cpu", torch.float32, 1e-3
        monkeypatch.setattr(engine, "check", lambda: None)
        # As it starts, the CPU build packs the weights away to where later ones would not reach.
        gemm = "vllm.model_executor.layers.utils.dispatch_cpu_unquantized_gemm"
        monkeypatch.setattr(gemm, lambda layer, remove_weight: setattr(layer, "cpu_linear", F.linear))
    else:
        pytest.skip("this build of vLLM decodes on a GPU, and there is none here")
    models = [pretrained("qwen3-32", seed).to(device, dtype) for seed in (0, 1)]
    greedy, drawn = dict(max_tokens=48, temperature=0, logps=True), dict(max_tokens=48, temperature=1.0)
    for i, model in enumerate(models):
        student = checkpoint("qwen3-32", i)
        cell = make_cell(engine="vllm", student=student, dtype=str(dtype)[6:], max_completion_tokens=48)
        prompts = [encode(p, cell, tokenizer) for p in held_out("chain", 24)]
        sampler = engine.VLLMSampler(cell, model, tokenizer)
        for given in (model, models[1 - i]):
            reference = TorchSampler(given, tokenizer)
            for each in (reference, sampler):
                each.sync(given.state_dict().items())
            a, b = (each.sample(prompts, **greedy) for each in (reference, sampler))
            assert max(partings(given, prompts, a, b), default=0) < near
            first = [[c.logps[0] for c in found] for found in (a, b)]
            assert torch.allclose(*map(torch.tensor, first), rtol=0, atol=near)
        rows = sampler.sample(prompts, **drawn, seed=5)
        assert [c.truncated for c in rows] == [tokenizer.eos_token_id not in c.ids for c in rows]
        assert rows != sampler.sample(prompts, **drawn, seed=500)
        if not gpu:  # in bf16 a batch of another size rounds in another order
            assert rows[7:9] == sampler.sample(prompts[7:9], **drawn, seed=5 + 7)
