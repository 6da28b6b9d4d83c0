"""The pretrained testbed: its recipe, and a slice of its model through training in every regime on a CPU."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrd import UserError
from lrd.cell import Cell
from lrd.data.problems import held_out
from lrd.data.tokens import end_ids
from lrd.models.loading import load_model, load_tokenizer
from lrd.rewards.process import PRM
from lrd.runs.directory import Run, state
from lrd.runs.files import read_json
from lrd.testbed import build, kept, pretrained, prm as shepherd, recipe
from lrd.train.loop import train

pytest.importorskip("reasoning_gym", reason="needs the extra `pretrained`")
CPU = torch.device("cpu")
TASK = "reasoning-gym/gsm_symbolic"
CAREFUL = {"direct": [0.0, 0.0], "skip": [0.0, 0.0], "unboxed": [0.0, 0.0]}


def test_the_recipe_fits_its_preset():
    what, cell = recipe.load("smollm"), build._cell("smollm")
    assert what["task"] == cell.train_data == cell.eval_data and what["start"] == pretrained.PACKAGE
    for role in ("student", "teacher"):
        train = what[role]["train"]
        assert train["batch"] * train["sorted_batches"] <= train["documents"]


def test_the_package_becomes_a_checkpoint_once_and_any_other_start_stays_as_it_is(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(pretrained, "ROOT", tmp_path)
    monkeypatch.setattr(pretrained, "save_checkpoint", lambda into: made.append(into) or into.mkdir(parents=True))
    assert pretrained.folder("HuggingFaceTB/SmolLM2-360M") == "HuggingFaceTB/SmolLM2-360M" and not made
    assert pretrained.folder(pretrained.PACKAGE) == pretrained.folder(pretrained.PACKAGE) == "./models/smollm2"
    assert len(made) == 1 and [path.name for path in (tmp_path / "models").iterdir()] == ["smollm2"]


@pytest.fixture(scope="module")
def slice_of_it(smollm2, tmp_path_factory):
    """Two of SmolLM2's layers with its own tokenizer and weights, as an ordinary checkpoint."""
    folder = tmp_path_factory.mktemp("slice")
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    model.config.layer_types = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("role", ["student", "teacher", "prm"])
def test_the_repository_keeps_the_adapters_that_the_recipe_makes(role):
    world = recipe.load("smollm") | {"kept": kept.FOLDER / "smollm"}
    card = kept.card(world, role)
    assert card and (kept.FOLDER / "smollm" / role / "adapter_model.safetensors").stat().st_size < 6e6
    assert role != "prm" or card["held_out_step_accuracy"] > card["majority_step_accuracy"] + 0.05


@pytest.mark.slow
def test_the_teacher_that_the_repository_keeps_is_the_recipes_and_knows_its_templates(smollm2):
    """It finds the working of new problems of templates that it knows a nat a token likelier than SmolLM2 does."""
    world = recipe.load("smollm") | {"kept": kept.FOLDER / "smollm"}
    card = kept.card(world, "teacher")
    assert card and card["greedy"] > 0.3
    start = load_model(str(smollm2), "start", "float32", CPU)
    words, asked = load_tokenizer(str(smollm2), "start"), build._cell("smollm").prompt_template
    problems = [p for p in held_out(TASK, 8) if p.id.startswith("seen-")]
    assert len(problems) >= 4

    def nats(model):
        told = 0.0
        for p in problems:
            assert p.solution
            prompt, ids = (words(text).input_ids for text in (asked.replace("{problem}", p.problem), p.solution))
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            told += torch.nn.functional.cross_entropy(logits, torch.tensor(ids)).item()
        return told / len(problems)

    with torch.no_grad():
        before = nats(start)
        after = nats(PeftModel.from_pretrained(start, str(kept.FOLDER / "smollm" / "teacher")))
    assert after < before - 1


@pytest.mark.slow
def test_the_step_tag_gets_a_token_of_its_own_and_the_mean_of_all_rows(slice_of_it):
    words, model = load_tokenizer(str(slice_of_it), "start"), load_model(str(slice_of_it), "start", "float32", CPU)
    with pytest.raises(UserError, match="no token of its own"):
        PRM(model, words, "slice")
    before = model.get_input_embeddings().weight.clone()
    shepherd.add_tag(model, words)
    after = model.get_input_embeddings().weight
    assert after.shape[0] == len(words) == len(before) + 1
    assert torch.equal(after[:-1], before) and torch.allclose(after[-1], before.mean(0))
    shepherd.add_tag(model, words)  # it has one now
    assert PRM(model, words, "slice").tag == len(before)


@pytest.mark.slow
def test_a_slice_becomes_a_world_that_trains_in_every_regime(slice_of_it, tmp_path):
    """The student, the completer and the PRM are adapters on the slice, the teacher is trained in full."""
    part = {"train": {"steps": 2, "batch": 2, "learning_rate": 1e-3, "documents": 8}, "habits": CAREFUL}
    judge = {"adapter": 2, "solutions": 2, "held_out": 2, "completions": 1, "rows": 8}
    world = {"task": TASK, "seed": 0, "start": str(slice_of_it), "teacher": part}
    world |= dict.fromkeys(("student", "completer"), part | {"adapter": 2})
    world |= {"prm": judge | {"steps": 1, "batch": 2, "learning_rate": 1e-3}}
    models = {role: str(tmp_path / role) for role in ("student", "teacher", "prm")}
    short = {"steps": 2, "eval_every": 2, "eval_problems": 2, "validation_problems": 0, "max_completion_tokens": 8}
    short |= {"prompts_per_step": 2, "samples_per_prompt": 2}
    cells = {
        regime: Cell.load("smollm", regime=regime, rank=1, seed=0, **short, **models)
        for regime in ("outcome", "process", "distillation")
    }
    for role in ("student", "teacher", "completer"):
        build._train(role, world, tmp_path, cells["outcome"])
    card = build._train_prm(world, tmp_path, cells["outcome"])
    assert 0 <= card["held_out_step_accuracy"] <= 1

    start = load_model(str(slice_of_it), "start", "bfloat16", CPU).state_dict()
    for role in ("student", "teacher", "completer", "prm"):
        words, made = (
            load_tokenizer(str(tmp_path / role), role),
            load_model(str(tmp_path / role), role, "bfloat16", CPU),
        )
        assert end_ids(words, made.config, made.generation_config) == {2} and words.decode([2]) == pretrained.END
        moved = {
            key for key, value in start.items() if role != "prm" and not torch.equal(value, made.state_dict()[key])
        }
        assert role == "prm" or any("proj" in key for key in moved)
        assert ("model.embed_tokens.weight" in moved) == (role == "teacher")
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == {"student", "completer", "prm"}
    for role in ("student", "completer", "prm"):  # an adapter over the pretrained weights is the checkpoint
        adapter = tmp_path / "adapters" / role
        base, words = load_model(str(slice_of_it), role, "float32", CPU), load_tokenizer(str(slice_of_it), role)
        if role == "prm":
            shepherd.add_tag(base, words)
        again = PeftModel.from_pretrained(base, str(adapter)).double().merge_and_unload().bfloat16().state_dict()
        made = load_model(str(tmp_path / role), role, "bfloat16", CPU).state_dict()
        assert made.keys() == again.keys() and all(torch.equal(made[key], again[key]) for key in made)
        assert {value.dtype for value in load_file(adapter / "adapter_model.safetensors").values()} == {torch.bfloat16}
        about = read_json(adapter / "adapter_config.json")
        assert about is not None and about["base_model_name_or_path"] == world["start"]

    for cell in cells.values():
        run = Run(cell, tmp_path / "runs")
        assert [row["step"] for row in train(run)] == [1, 2]
        run.finish()
        assert state(run.path) == "finished"
