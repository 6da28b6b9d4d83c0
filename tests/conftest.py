"""What all tests share: no network, one thread, shapes checked at run time, and tiny random checkpoints.

The library's jaxtyping annotations are only read here: every function of `lrd` that a test calls in this process has
the shapes and dtypes of its tensors checked against its signature.
"""
# ruff: noqa: E402 (the environment and the checks have to stand before the imports that read them)

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from jaxtyping import config as jaxtyping_config, install_import_hook

install_import_hook("lrd", "typecheck.checked")  # before the first import of lrd

import filelock
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from lrd import ROOT
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.models.policy import Policy
from lrd.rollouts import Completion, Rollouts, collate
from lrd.testbed.corpus import tokenizer as corpus_tokenizer

# `no_grad` knows a generator by its code, which jaxtyping's wrapper hides: undone, or tests alone would see gradients.
Policy.weights = torch.no_grad()(inspect.unwrap(Policy.weights))

torch.set_num_threads(1)
settings.register_profile("lrd", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("lrd")


def _config(kind: str, vocabulary: int, eos: int, pad: int) -> PretrainedConfig:
    common = dict(vocab_size=vocabulary, bos_token_id=None, eos_token_id=eos, pad_token_id=pad, initializer_range=0.15)
    decoder = common | dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    if kind == "qwen3":  # tied, with a head_dim that is not hidden_size / heads
        return Qwen3Config(**decoder, head_dim=16, tie_word_embeddings=True)
    if kind == "qwen3-32":  # the same, with the least head_dim that vLLM has on CPU
        return Qwen3Config(**decoder, head_dim=32, tie_word_embeddings=True)
    if kind == "llama":  # untied, with a bias on every projection
        return LlamaConfig(**decoder, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
    if kind == "gpt2":  # learned absolute positions
        return GPT2Config(**common, n_embd=32, n_layer=2, n_head=4, n_positions=256)
    if kind == "neox":  # linear layers under names of their own
        return GPTNeoXConfig(**{k: v for k, v in decoder.items() if k != "num_key_value_heads"})
    if kind == "opt":  # learned positions, and linear maps outside of its layers
        return OPTConfig(**decoder, ffn_dim=48, word_embed_proj_dim=16)
    raise ValueError(kind)


def _random_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """Biases and norms are random too, or a swapped or forgotten one would not show."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 1:
                    p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture
def unchecked():
    """Without jaxtyping's checks: what the library itself says of a wrong shape."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tokenizer():
    return corpus_tokenizer()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer) -> Callable[..., str]:
    """`checkpoint(kind, seed)`: the directory of a random two-layer model (of `_config`) and tokenizer."""
    made: dict[tuple[str, int], str] = {}

    def make(kind: str = "qwen3", seed: int = 0) -> str:
        if (kind, seed) not in made:
            path = tmp_path_factory.mktemp(f"{kind}-{seed}")
            config = _config(kind, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
            _random_model(config, seed).save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[kind, seed] = str(path)
        return made[kind, seed]

    return make


@pytest.fixture
def variant(tmp_path, tokenizer) -> Callable[..., str]:
    """`variant(name, …)`: the directory of a random checkpoint with another tokenizer, configuration or end tokens."""

    def make(name: str, words=None, kind: str = "qwen3", seed: int = 0, ends=None, **changes) -> str:
        words = tokenizer if words is None else words
        config = _config(kind, len(words), tokenizer.eos_token_id, tokenizer.pad_token_id)
        for key, value in changes.items():
            setattr(config, key, value)
        model = _random_model(config, seed)
        if ends is not None:
            model.generation_config.eos_token_id = ends
        model.save_pretrained(tmp_path / name)
        words.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def reworded() -> Callable[..., PreTrainedTokenizerFast]:
    """`reworded(more, template, task=…, **special)`: the task's tokenizer with more words, put around texts or not."""

    def make(more: tuple[str, ...] = (), template: str | None = None, task: str = "chain", **special):
        raw = json.loads(corpus_tokenizer(task)._tokenizer.to_str())
        raw["model"]["vocab"] |= {word: len(raw["model"]["vocab"]) + i for i, word in enumerate(more)}
        made = Tokenizer.from_str(json.dumps(raw))
        if template:
            used = [(word, made.token_to_id(word)) for word in template.split() if word != "$A"]
            made.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
        special = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"} | special
        return PreTrainedTokenizerFast(tokenizer_object=made, **special)

    return make


@pytest.fixture(scope="session")
def pretrained(checkpoint) -> Callable[..., PreTrainedModel]:
    """A fresh model from `checkpoint(kind, seed)`, as transformers loads it."""
    return lambda kind="qwen3", seed=0: AutoModelForCausalLM.from_pretrained(checkpoint(kind, seed)).eval()


@pytest.fixture(scope="session")
def make_cell(checkpoint) -> Callable[..., Cell]:
    """A cell of the tiny checkpoints; keyword arguments change any field."""

    def make(**changes) -> Cell:
        values = dict(
            preset="test",
            regime="outcome",
            rank=4,
            seed=0,
            student=checkpoint("qwen3"),
            teacher=checkpoint("qwen3", 1),
            prm=checkpoint("qwen3", 2),
            train_data="chain",
            eval_data="chain",
            max_completion_tokens=16,
            learning_rate=1e-2,
        )
        return Cell(**(values | changes))

    return make


@pytest.fixture(scope="session")
def settings(checkpoint) -> dict[str, Any]:
    """What makes a cell of preset `tiny` short, and independent of the testbed."""
    models = {"student": checkpoint("qwen3"), "teacher": checkpoint("qwen3", 1), "prm": checkpoint("qwen3", 2)}
    return {"steps": 2, "eval_every": 2, "eval_problems": 4, "max_completion_tokens": 8} | models


@pytest.fixture(scope="session")
def as_options(settings) -> list[str]:
    """The same for the command line."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="session")
def make_rollouts(tokenizer) -> Callable[..., Rollouts]:
    """`make_rollouts([(problem, answer, [completion, …]), …])`: one batch; completions are texts or token ids.

    A text is given an end-of-sequence token, token ids are taken as they are (and as truncated if they have none).
    """

    def make(batch: list[tuple[str, str, list[str | list[int]]]]) -> Rollouts:
        problems = [Problem(id=str(i), problem=problem, answer=answer) for i, (problem, answer, _) in enumerate(batch)]
        completions = []
        for _, _, texts in batch:
            for text in texts:
                ids = tokenizer(text).input_ids + [tokenizer.eos_token_id] if isinstance(text, str) else text
                completions.append(Completion(ids, None, tokenizer.eos_token_id not in ids))
        prompts = [tokenizer(f"Last digit:{p.problem}\n").input_ids for p in problems]
        samples = len(completions) // len(problems)
        return collate(problems, prompts, completions, samples, tokenizer)

    return make


@pytest.fixture(scope="session")
def rollouts(make_rollouts, tokenizer) -> Rollouts:
    """Two prompts of different length with two completions each: one cut off, one of a single token."""
    return make_rollouts(
        [
            ("6a*2b-6", "6", ["a6*2=2\nb2-6=6\nThe answer is \\boxed{6}.", tokenizer("a6*2=2\n=2").input_ids]),
            ("1a+2b*3c-4d+5", "0", ["The answer is \\boxed{0}.", [tokenizer.eos_token_id]]),
        ]
    )


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], None]], Path]:
    """`once(name, make)`: a directory that `make` fills once, whichever of the processes that run tests asks first."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def get(name: str, make: Callable[[Path], None]) -> Path:
        path, made = base / name, base / f"{name}.made"
        with filelock.FileLock(base / f"{name}.lock"):
            if not made.exists():
                path.mkdir()
                make(path)
                made.touch()
        return path

    return get


@pytest.fixture(scope="session")
def latin(tmp_path_factory) -> dict[str, str]:
    """The environment of a real ISO-8859-1 locale. C and POSIX would not do: Python takes UTF-8 for them."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef"):
        pytest.skip("localedef is not installed")
    made = subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"])
    if made.returncode:
        pytest.skip("localedef finds no sources of locales")
    left = {k: v for k, v in os.environ.items() if k not in ("PYTHONUTF8", "PYTHONIOENCODING") and k[:3] != "LC_"}
    found = left | {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}
    code = "import locale, sys; print(locale.getpreferredencoding(False), sys.stdout.encoding)"
    shown = subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, check=True).stdout
    assert shown.split() == [b"ISO-8859-1", b"iso8859-1"]
    return found


@pytest.fixture(scope="session")
def math500() -> Path:
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "math500.jsonl"
    if not path.is_file():
        pytest.skip("math500.jsonl is not part of the repository, and is not beside it either")
    return path


@pytest.fixture(scope="session")
def ignored() -> Callable[[str], bool]:
    """Whether git would leave out a path of the repository; skips where it is no git checkout."""

    def ask(path: str) -> bool:
        status = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", "--no-index", path]).returncode
        if status > 1:
            pytest.skip("not a git checkout")
        return status == 0

    return ask
