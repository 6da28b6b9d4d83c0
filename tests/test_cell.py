"""The matrix and the configuration of its cells: names, values, and what is said of a mistake."""

import dataclasses
import json
import math
import tomllib

import pytest

from lrd import ROOT, UserError, cell as cell_module, presets
from lrd.cell import Cell, grid, settings
from lrd.data.hub import location
from lrd.presets import preset_names, read_preset

pytestmark = pytest.mark.usefixtures("unchecked")  # the library's own words on a wrong type, not beartype's

RANKS = (1, 4, 16, 64, 256, None)


def load(preset: str = "tiny", regime: str = "outcome", rank=4, seed: int = 0, **overrides) -> Cell:
    return Cell.load(preset, regime=regime, rank=rank, seed=seed, **overrides)


def says(match: str, *args, **kwargs) -> None:
    """A `UserError` of one line that says what is wrong."""
    with pytest.raises(UserError, match=match) as error:
        load(*args, **kwargs)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


# --- the matrix


@pytest.mark.parametrize("preset, seeds", [("tiny", 3), ("small", 5), ("paper", 3)])
def test_a_preset_is_18_cells_a_seed_in_a_stable_order(preset, seeds):
    regimes = ["outcome", "process", "distillation"]
    arms = ["full" if rank is None else f"r{rank}" for rank in RANKS]
    want = [f"{regime}-{arm}-s{seed}" for seed in range(seeds) for arm in arms for regime in regimes]
    cells = grid(preset)
    assert [cell.name for cell in cells] == want and len(set(want)) == 18 * seeds
    assert {cell.preset for cell in cells} == {preset}
    assert [cell.name for cell in grid(preset)] == want


def test_every_preset_can_be_read():
    assert {"tiny", "small", "paper", "fair-lr", "small-bf16"} <= set(preset_names())
    for name in preset_names():
        assert {cell.preset for cell in grid(name)} == {name}
    assert {cell.seed for cell in grid("fair-lr")}.isdisjoint(cell.seed for cell in grid("fair"))
    assert [cell.name for cell in grid("small-bf16")][:2] == [
        f"outcome-full-master_dtype={dtype}-s0" for dtype in ("float32", "bfloat16")
    ]


def test_a_narrowed_matrix():
    cells = grid("tiny", {"regime": ["process"], "rank": ["full", 2], "seed": [7]}, steps=3)
    assert [cell.name for cell in cells] == ["process-full-s7", "process-r2-s7"]
    assert {cell.steps for cell in cells} == {3}
    assert len(grid("tiny", {"seed": [0], "rank": None})) == 18  # None leaves an axis as it is
    with pytest.raises(UserError, match="did you mean outcome"):
        grid("tiny", {"regime": ["outcom"]})
    with pytest.raises(UserError, match="two cells share a name"):
        grid("tiny", {"rank": ["4", 4]})


def test_cells_of_a_seed_differ_in_nothing_but_their_coordinates_and_learning_rate():
    first = grid("tiny")[0]
    for cell in grid("tiny"):
        rate = 3e-4 if cell.rank is None else 1e-3
        moved = dict(regime=cell.regime, rank=cell.rank, seed=cell.seed, learning_rate=rate)
        assert cell == dataclasses.replace(first, **moved)


# --- values


def test_the_papers_values_are_those_of_the_report():
    """Spec §3's table, and its models and data."""
    cell = load("paper")
    assert cell.config == dict(
        preset="paper",
        regime="outcome",
        rank=4,
        seed=0,
        student="Qwen/Qwen3-1.7B-Base",
        teacher="Qwen/Qwen3-8B",
        prm="peiyi9979/math-shepherd-mistral-7b-prm",
        dtype="bfloat16",
        engine="vllm",
        master_dtype="float32",  # not the report's
        train_data="EleutherAI/hendrycks_math",
        eval_data="HuggingFaceH4/MATH-500",
        eval_problems=100,
        validation_problems=0,
        prompt_template="Problem: {problem}\n\nSolution: ",
        system_prompt="",
        eval_reward="",
        grading="boxed",  # not the report's
        prompts_per_step=4,
        samples_per_prompt=4,
        temperature=0.7,
        top_p=0.95,
        max_completion_tokens=1536,
        steps=100,
        epochs=1,
        learning_rate=3e-5,
        warmup_steps=0,
        lr_schedule="constant",
        weight_decay=0.0,
        micro_batch=0,
        checkpointing="none",
        max_grad_norm=1.0,
        clip_epsilon=0.2,
        clip_epsilon_high=0.0,
        ratio_level="token",
        kl_coef=0.05,
        kl_estimator="paper",
        loss_aggregation="token",
        advantage_epsilon=1e-8,
        advantage_norm="group",
        truncated_completions="kept",
        importance_cap=0.0,
        prm_reads="all",
        deposit_rule="each",
        overlong_penalty=0.0,
        outcome_weight=0.0,
        to_go="sum",
        advantage_cap=0.0,
        advantage_scale="as is",
        logp_temperature=1.0,
        lora_alpha=32.0,
        lora_targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        lora_layers=[],
        lora={},
        eval_every=10,
        eval_batch=cell.eval_batch,  # how many are decoded at a time is nothing to the report
        logged_completions=cell.logged_completions,
    )


@pytest.mark.parametrize("preset, lora, full", [("paper", 3e-5, 1e-5), ("small", 1e-3, 3e-5), ("tiny", 1e-3, 3e-4)])
def test_full_fine_tuning_has_its_own_learning_rate(preset, lora, full):
    assert {load(preset, rank=rank).learning_rate for rank in RANKS if rank} == {lora}
    for rank in (None, "full"):
        assert load(preset, rank=rank).learning_rate == full
        assert load(preset, rank=rank, learning_rate=7e-5).learning_rate == 7e-5  # an override has the last word


@pytest.mark.parametrize(
    "rank, name",
    [(1, "outcome-r1-s0"), ("16", "outcome-r16-s0"), (None, "outcome-full-s0"), ("full", "outcome-full-s0")],
)
def test_names(rank, name):
    assert load(rank=rank).name == name


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("rank", [4, None])
def test_the_configuration_survives_json(preset, rank):
    cell = load(preset, rank=rank, steps=3)
    config = json.loads(json.dumps(cell.config))
    assert config == cell.config and config["rank"] == rank and config["steps"] == 3
    assert set(config) == {field.name for field in dataclasses.fields(Cell)}
    axes = {key: config.pop(key) for key in ("preset", "regime", "rank", "seed")}
    assert Cell.load(axes.pop("preset"), **axes, **config) == cell


def test_the_papers_baseline_is_the_reports():
    """All of MATH-500, 4096 tokens; everything else as the cells have it."""
    [cell, other] = [grid("paper", **changes)[0] for changes in (read_preset("paper")["baseline"], {})]
    differing = {key: value for key, value in cell.config.items() if other.config[key] != value}
    assert differing == {"eval_problems": 500, "max_completion_tokens": 4096}


def test_overrides_set_any_field():
    cell = load(steps=3, kl_estimator="k3", lora_targets=["q_proj"], learning_rate=1, temperature=1)
    assert (cell.steps, cell.kl_estimator, cell.lora_targets) == (3, "k3", ("q_proj",))
    assert isinstance(cell.learning_rate, float) and isinstance(cell.temperature, float)


def test_a_cell_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().steps = 1  # pyright: ignore


# --- further axes


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """`preset(name, text)` adds a preset beside the present ones."""
    for path in presets.FOLDER.glob("*.toml"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    return lambda name, text: (tmp_path / f"{name}.toml").write_text(text)


RATES = """
base = "tiny"
[about]
question = "Which rate?"
[axes]
rank = [16, "full"]
learning_rate = [1, 3e-3]
seed = [7, 8]
[cell]
regime = "outcome"
steps = 5
"""


def test_an_arm_tries_the_rates_of_its_window(preset):
    preset("rates", RATES + "[windows]\nfull = [1]\nprocess = { lora = [3e-3] }")
    cells = [(cell.arm, cell.learning_rate) for cell in grid("rates") if cell.seed == 8]
    assert cells == [("r16", 1.0), ("full", 1.0), ("r16", 3e-3)]
    cells = [(cell.arm, cell.learning_rate) for cell in grid("rates", {"regime": ["process"]}) if cell.seed == 8]
    assert cells == [("full", 1.0), ("r16", 3e-3)]


def test_an_axis_over_any_field(preset):
    preset("rates", RATES)
    cells = grid("rates")
    assert [cell.name for cell in cells][:5] == [
        "outcome-r16-learning_rate=1.0-s7",
        "outcome-full-learning_rate=1.0-s7",
        "outcome-r16-learning_rate=0.003-s7",
        "outcome-full-learning_rate=0.003-s7",
        "outcome-r16-learning_rate=1.0-s8",
    ]
    assert [(c.rank, c.learning_rate, c.seed, c.steps) for c in cells[2:4]] == [(16, 3e-3, 7, 5), (None, 3e-3, 7, 5)]
    one = Cell.load("rates", rank="full", seed=8, learning_rate=3e-3)  # not the base's rule for full fine-tuning
    assert one in cells and one.point == {"learning_rate": 3e-3}
    assert [c.name for c in grid("rates", {"rank": ["full"]}, learning_rate=3e-3)] == [
        "outcome-full-learning_rate=0.003-s7",
        "outcome-full-learning_rate=0.003-s8",
    ]
    assert grid("rates", {"regime": ["process"]})[0].name == "process-r16-learning_rate=1.0-s7"


def test_axes_of_other_types_and_their_names(preset):
    text = """
    base = "tiny"
    [axes]
    lora_targets = [["q_proj"], ["q_proj", "v_proj"]]
    master_dtype = ["bfloat16"]
    student = ["./models/tiny/student"]
    [cell]
    regime = "outcome"
    rank = 4
    seed = 3
    """
    preset("where", text)
    end = "master_dtype=bfloat16-student=._models_tiny_student-s3"
    assert [c.name for c in grid("where")] == [
        f"outcome-r4-lora_targets=q_proj-{end}",
        f"outcome-r4-lora_targets=q_proj+v_proj-{end}",
    ]
    again = Cell.load("where", lora_targets=["q_proj"], master_dtype="bfloat16", student="./models/tiny/student")
    assert again == grid("where")[0] and again.arm == "r4"


PLACES = """
base = "tiny"
[axes]
seed = [0, 1]
[axes.adapter]
query = { rank = 1, lora_targets = ["q_proj"], lora_layers = [0] }
rank-1 = { rank = 1 }
full = { rank = "full" }
[cell]
regime = "outcome"
"""


def test_an_axis_over_several_fields(preset):
    preset("places", PLACES)
    cells = grid("places")
    assert [c.name for c in cells][:4] == [
        "outcome-r1-adapter=query-s0",
        "outcome-r1-adapter=rank-1-s0",
        "outcome-full-adapter=full-s0",
        "outcome-r1-adapter=query-s1",
    ]
    assert [(c.rank, c.lora_targets, c.lora_layers) for c in cells[:3]] == [
        (1, ("q_proj",), (0,)),
        (1, Cell.lora_targets, ()),
        (None, Cell.lora_targets, ()),
    ]
    assert cells[2].learning_rate == 3e-4  # the base's rule knows the fields of a label
    for cell in cells:  # as the notebook is given it
        assert Cell.load("places", rank=cell.rank or "full", seed=cell.seed, **cell.point) == cell
    assert Cell.load("places", adapter="query", seed=0, lora_layers=[1], lora_targets=["q_proj"]).lora_layers == (1,)


def test_narrowing_an_axis_over_several_fields(preset):
    preset("places", PLACES)

    def arms(narrowed=None, **overrides) -> list[str]:
        return [c.point["adapter"] for c in grid("places", narrowed, seed=0, **overrides)]

    assert arms({"rank": ["1"]}) == ["query", "rank-1"] and arms({"rank": ["full"]}) == ["full"]
    assert arms({"adapter": ["full", "query"]}) == ["full", "query"] and arms(adapter="full") == ["full"]
    assert arms(steps=3) == ["query", "rank-1", "full"]
    with pytest.raises(UserError, match=r"axis adapter of preset 'places' has nothing with rank = \[3\]"):
        arms({"rank": [3]})
    with pytest.raises(UserError, match="axis adapter of preset 'places' has no 'quary'; it has query, rank-1, full"):
        arms(adapter="quary")
    elsewhere = Cell.load("places", adapter="query", seed=0, lora_targets=["v_proj"], rank=2)
    with pytest.raises(UserError, match="no label of axis adapter .* has this cell's values"):
        _ = elsewhere.name
    preset("shadow", PLACES.replace("axes.adapter", "axes.rank"))
    with pytest.raises(UserError, match="axis rank of preset 'shadow' is a table and has the name of a setting"):
        grid("shadow")


def test_layers_in_a_name(preset):
    preset(
        "layers", 'base = "tiny"\n[axes]\nlora_layers = [[], [0, 1]]\nseed = [0]\n[cell]\nregime = "outcome"\nrank = 1'
    )
    assert [c.name for c in grid("layers")] == ["outcome-r1-lora_layers=all-s0", "outcome-r1-lora_layers=0+1-s0"]


def test_a_preset_on_another(preset):
    preset("rates", RATES)
    tiny, rates = read_preset("tiny"), read_preset("rates")
    assert rates["cell"] == tiny["cell"] | {"regime": "outcome", "steps": 5}
    assert rates["rates"] == tiny["rates"] and rates["resources"] == tiny["resources"]
    assert rates["about"] == {"question": "Which rate?"}
    preset("more", 'base = "rates"\n[cell]\nsteps = 6')
    assert "about" not in read_preset("more")
    assert [c.config for c in grid("more")] == [c.config | {"preset": "more", "steps": 6} for c in grid("rates")]
    preset("loop", 'base = "again"')
    preset("again", 'base = "loop"')
    with pytest.raises(UserError, match="'loop' extends itself: loop → again → loop"):
        grid("loop")
    preset("lost", 'base = "tinny"')
    with pytest.raises(UserError, match=r"unknown preset 'tinny' \(did you mean tiny"):
        grid("lost")


def test_axes_of_a_base(preset):
    """They stay, in their order and behind new ones, but for those over a field that is set or varied otherwise."""
    preset("places", PLACES)
    preset("some", 'base = "places"\n[axes]\nengine = ["torch"]\nadapter = ["full", "query"]')
    assert [c.name for c in grid("some", {"seed": [1]})] == [
        "outcome-full-engine=torch-adapter=full-s1",
        "outcome-r1-engine=torch-adapter=query-s1",
    ]
    for other in ("[axes]\nrank = [4]", "[cell]\nrank = 4", "[axes.size]\nfour = { rank = 4 }"):
        preset("other", f'base = "places"\n{other}')
        assert "adapter" not in grid("other")[0].point and {(c.rank, c.seed) for c in grid("other")} == {(4, 0), (4, 1)}
    preset("none", 'base = "places"\n[axes]\nadapter = ["quary"]')
    with pytest.raises(UserError, match="axis adapter of preset 'none' has no 'quary'; it has query, rank-1, full"):
        grid("none")


def test_rates_by_label_rank_and_regime(preset):
    table = "[rates]\nlora = 1\nr4 = 2\nfull = 3\nprocess = { query = 4, lora = 5 }"
    preset("rates", f"{PLACES}\n{table}")

    def rate(regime: str, **given) -> float:
        return Cell.load("rates", regime=regime, seed=0, **given).learning_rate

    assert [rate("outcome", rank=rank) for rank in (1, 4, "full")] == [1.0, 2.0, 3.0]
    assert [rate("process", rank=rank) for rank in (1, 4, "full")] == [5.0, 2.0, 3.0]
    assert rate("outcome", adapter="query") == 1.0 and rate("process", adapter="query") == 4.0
    assert rate("process", adapter="query", learning_rate=7) == 7.0
    preset("fixed", 'base = "rates"\n[cell]\nlearning_rate = 8')
    assert {c.learning_rate for c in grid("fixed")} == {8.0}
    preset("own", 'base = "rates"\n[rates]\nlora = 9')
    assert {c.learning_rate for c in grid("own", {"rank": [1]})} == {9.0}
    with pytest.raises(UserError, match="'own' gives no value for learning_rate"):
        grid("own")


def test_values_of_one_regime(preset):
    preset("mixed", 'base = "tiny"\n[regime]\nprocess = { steps = 7 }')
    assert {(c.regime, c.steps) for c in grid("mixed")} == {("outcome", 80), ("process", 7), ("distillation", 80)}
    assert {c.steps for c in grid("mixed", steps=9)} == {9}


def test_what_follows_from_a_codebook(preset):
    preset("book", 'base = "tiny"\n[cell]\nteacher = "./teacher-{book}"')
    cell = Cell.load("law", regime="outcome", rank=4, seed=0, train_data="codebook-64x2-5")
    assert (cell.eval_data, cell.eval_problems, cell.teacher) == ("codebook-64x2-5", 64, "./models/law/teacher-5")
    cell = Cell.load("law", regime="outcome", rank=4, seed=0, eval_data="chain", eval_problems=3, teacher="./mine")
    assert (cell.eval_data, cell.eval_problems, cell.teacher) == ("chain", 3, "./mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[override]", r"unknown key 'override' in preset 'wrong'$"),
        ("[rate]\nlora = 1", r"unknown key 'rate' in preset 'wrong' \(did you mean rates"),
        ("[rates]\nlorra = 1", r"rates of preset 'wrong' has 'lorra', which is no arm \(did you mean lora\?\)"),
        ("[rates]\nprocess = { rank = 1 }", "rates of preset 'wrong' has 'rank', which is no arm"),
        ("[windows]\nr0 = [1]", "windows of preset 'wrong' has 'r0', which is no arm"),
        ("[rates]\nproces = { lora = 1 }", r"values for an unknown regime 'proces' \(did you mean process"),
        ("[regime.proces]\nsteps = 1", r"values for an unknown regime 'proces' \(did you mean process"),
        ("[regime.process]\nstep = 1", r"unknown setting 'step' .*\(did you mean steps"),
        ("[cell]\nstep = 1", r"unknown setting 'step' .*\(did you mean steps"),
        ("[axes.place]\na = { step = 1 }", r"unknown setting 'step' .*\(did you mean steps"),
        ("[axes.place]\na = 1", "a on axis place of preset 'wrong' is 1; it has to be a table"),
        ('[axes.place]\n"a b" = {}', "label of axis place 'a b' is no name"),
    ],
)
def test_a_preset_that_holds_what_none_does(preset, text, said):
    preset("wrong", f'base = "tiny"\n{text}')
    with pytest.raises(UserError, match=said):
        grid("wrong")


def test_mistakes_in_axes(preset):
    preset("one", 'base = "tiny"\n[axes]\nlearning_rte = [1]')
    with pytest.raises(UserError, match="unknown setting 'learning_rte'.*did you mean learning_rate"):
        grid("one")
    preset("two", 'base = "tiny"\n[axes]\nrank = [1]\nsteps = 5')
    with pytest.raises(UserError, match="axis steps of preset 'two' is 5; it has to be a list of values"):
        grid("two")
    preset("three", '[axes]\nrank = [1]\n[cell]\nstudent = "./s"')
    with pytest.raises(
        UserError, match=r"gives no value for eval_data, .*, regime, seed, .*--regime outcome\|.* --seed …"
    ):
        grid("three")


def test_every_setting_has_a_kind_a_default_and_a_meaning():
    table = {key: tuple(words) for key, *words in settings()}
    assert list(table) == [field.name for field in dataclasses.fields(Cell)]
    assert all(kind and meaning for kind, _, meaning in table.values())
    assert table["steps"] == ("a whole number", "100", "rollouts of the whole run, each with its updates")
    assert table["engine"][:2] == ("one of torch, vllm", '"torch"')
    assert table["learning_rate"][1] == "" and table["rank"][0] == "a whole number, or full"
    assert table["lora_targets"][1].startswith('["q_proj", ')
    for key, (_, default, _) in table.items():  # a default is what `--set` takes
        if default:
            assert cell_module._coerce(key, tomllib.loads(f"value = {default}")["value"]) == getattr(Cell, key)


def test_the_only_value_of_an_axis_need_not_be_given(preset):
    preset("alone", 'base = "tiny"\n[axes]\nregime = ["process"]\nrank = ["full"]\nseed = [3]\n')
    cell = Cell.load("alone")
    assert (cell.regime, cell.rank, cell.seed) == ("process", None, 3) and [cell] == grid("alone")
    assert Cell.load("alone", seed=4).seed == 4 and Cell.load("alone", rank=1).name == "process-r1-s3"


def test_what_is_not_given_is_asked_for_by_the_options_that_give_it(preset):
    preset("places", PLACES)
    with pytest.raises(UserError, match=r"gives no value for rank; give --set adapter=query\|rank-1\|full$"):
        Cell.load("places", seed=0)
    with pytest.raises(UserError, match=r"gives no value for rank, seed; .* --seed 0\|1$"):
        Cell.load("places")
    with pytest.raises(UserError, match="axis adapter of preset 'places' has no "):
        Cell.load("places", adapter=["query"], seed=0)
    with pytest.raises(UserError, match=r"regime, seed; give --regime outcome\|process.* --seed 0\|1\|2$"):
        Cell.load("tiny", rank=4)


@pytest.mark.parametrize("name", ["./mine", "../mine", "/mine", "./models/tiny/mine"])
def test_a_path_that_is_not_there_is_named_in_full(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where a shell would look for it
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    with pytest.raises(UserError) as refused:
        location(name, "student")
    assert f"(tried {(ROOT / name).resolve()}; paths count from {ROOT})" in str(refused.value)


# --- mistakes


@pytest.mark.parametrize("preset", ["tinny", "", "../tiny", "Tiny"])
def test_unknown_presets(preset):
    says(r"unknown preset .*(did you mean tiny|there are .*paper.*small.*tiny)", preset)


def test_the_nearest_preset_is_named():
    says(r"unknown preset 'papre' \(did you mean paper\?\)", "papre")


def test_unknown_regimes():
    says(r"'outcom' \(did you mean outcome\?\); there are outcome, process, distillation", regime="outcom")
    says(r"unknown regime 'xyz'; there are", regime="xyz")


def test_unknown_settings():
    says(r"unknown setting 'learning_rte' .*\(did you mean learning_rate", learning_rte=1.0)
    says(r"unknown setting 'zzz' for a cell of preset 'tiny'$", zzz=1)


@pytest.mark.parametrize("rank", [0, -1, "0", "x", "", 1.5, "1.5", True, math.nan, math.inf, [4]])
def test_bad_ranks(rank):
    says(r"rank is .*; it has to be 1 or more, or 'full' for full fine-tuning", rank=rank)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("samples_per_prompt", 1, "at least 2"),
        ("prompts_per_step", 0, "at least 1"),
        ("max_completion_tokens", 0, "at least 1"),
        ("eval_problems", 0, "at least 1"),
        ("eval_every", 0, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("steps", -1, "at least 0"),
        ("seed", -1, "at least 0"),
        ("learning_rate", -1e-3, "at least 0"),
        ("learning_rate", math.nan, "at least 0"),
        ("kl_coef", -0.1, "at least 0"),
        ("temperature", 0.0, "positive"),
        ("temperature", math.inf, "positive and finite"),
        ("top_p", 0.0, "positive"),
        ("top_p", 1.01, "at most 1"),
        ("clip_epsilon", 0.0, "positive"),
        ("clip_epsilon_high", -0.1, "at least 0"),
        ("ratio_level", "tokens", "did you mean token"),
        ("warmup_steps", 81, "the run has 80 steps"),
        ("lr_schedule", "cosin", "did you mean cosine"),
        ("importance_cap", -1.0, "at least 0"),
        ("truncated_completions", "cut", "there are kept, masked"),
        ("lora_alpha", 0, "positive"),
        ("lora_layers", [-1], "each layer's number once, from 0"),
        ("lora_layers", [1, 1], "each layer's number once, from 0"),
        ("lora_targets", ["q_proj", "q_proj"], "each name once"),
        ("learning_rate", math.inf, "finite"),
        ("advantage_epsilon", -1.0, "at least 0"),
        ("dtype", "float8", "'float8'.*there are float32, bfloat16"),
        ("kl_estimator", "k4", "there are paper, k1, k2, k3"),
        ("loss_aggregation", "tokens", "did you mean token"),
        ("grading", "box", "did you mean boxed"),
        ("prompt_template", "Problem: {}", "has no {problem}"),
    ],
)
def test_values_that_cannot_work(key, value, said):
    if key == "seed":
        says(rf"{key}.*{said}", seed=value)
    else:
        says(rf"{key}.*{said}", **{key: value})


def test_the_samplers_weights_need_its_temperature():
    says("importance_cap is 2.0 and logp_temperature 0.7; it has to be 1", importance_cap=2.0, logp_temperature=0.7)


@pytest.mark.parametrize(
    "key, value",
    [
        ("steps", "10"),
        ("steps", 1.5),
        ("steps", True),
        ("steps", None),
        ("learning_rate", "fast"),
        ("learning_rate", True),
        ("student", 3),
        ("student", None),
        ("lora_targets", "q_proj"),
        ("lora_targets", []),
        ("lora_targets", [1]),
        ("lora_layers", ["0"]),
        ("lora_layers", [True]),
        ("kl_estimator", 3),
        ("lora", "use_dora"),
        ("lora", ["use_dora"]),
    ],
)
def test_wrong_types(key, value):
    says(rf"{key} is .*; it has to be (a|one of) ", **{key: value})


@pytest.mark.parametrize("key", ["steps", "engine"])
def test_a_long_value_is_not_repeated_as_a_whole(key):
    says(r"^.{0,20} '9{99}…", **{key: "9" * 5000})


@pytest.mark.parametrize("seed", ["0", 1.5, None, True])
def test_wrong_seeds(seed):
    says("seed is .*; it has to be a whole number", seed=seed)


def test_the_check_holds_for_a_cell_made_by_hand():
    with pytest.raises(UserError, match="samples_per_prompt"):
        dataclasses.replace(load(), samples_per_prompt=1)
