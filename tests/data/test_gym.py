"""Problems of reasoning-gym: the split by problem and by template, names of sources, and what is refused."""

import pytest
from hypothesis import given, settings, strategies as st

from lrd import UserError, names
from lrd.data import gym, problems
from lrd.verifier import is_correct

pytest.importorskip("reasoning_gym", reason="needs the extra `pretrained`")
STORIES = "reasoning-gym/gsm_symbolic"


@pytest.fixture(scope="module")
def pools():
    return gym.pool(STORIES, "train", 1500), gym.pool(STORIES, "test", 400)


def test_no_problem_and_no_unseen_template_is_in_both_splits(pools):
    train, test = pools
    assert not {one.text for one in train} & {one.text for one in test}
    unseen = {one.template for one in test if one.is_unseen}
    assert len(unseen) > 5 and not unseen & {one.template for one in train}
    assert {one.template for one in test if not one.is_unseen} <= {one.template for one in train}


def test_three_eighths_of_the_test_split_are_of_unseen_templates(pools):
    assert sum(one.is_unseen for one in pools[1]) == 150 and len(pools[1]) == 400


def test_every_worked_solution_ends_in_its_answer(pools):
    assert all(is_correct(one.solution, one.answer) for one in pools[0][:300])


def test_a_pool_is_the_same_again_and_a_longer_one_goes_on_from_it():
    assert gym.pool(STORIES, "train", 40) == gym.pool(STORIES, "train", 60)[:40]


def test_a_problem_says_its_template_and_whether_training_saw_it():
    held_out = problems.held_out(STORIES, 800)
    kinds = [one.id.split("-")[0] for one in held_out]
    assert set(kinds) == {"seen", "unseen"} and 200 < kinds.count("unseen") < 400
    assert all(one.subject == f"template {one.id.split('-')[1]}" for one in held_out)
    assert len({one.id for one in held_out}) == 800


def test_a_small_family_gives_what_it_has():
    train, test = gym.pool("reasoning-gym/coin_flip", "train", 5000), gym.pool("reasoning-gym/coin_flip", "test", 5000)
    assert 100 < len(train) < 5000 and 5 < len(test) < 100
    assert train[0].template is None and train[0].solution is None and not train[0].is_unseen


def test_settings_of_a_family_stand_behind_a_question_mark():
    assert all(len(one.answer) <= 2 for one in gym.pool("reasoning-gym/products?max_digits=1", "train", 50))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("reasoning-gym/gsm_symbolics", "no family 'gsm_symbolics' .did you mean gsm_symbolic"),
        ("reasoning-gym/products?max_digits=-1", "max_digits must be >= min_digits"),
        ("reasoning-gym/products?digits=2", "refuses .*'digits'"),
        ("reasoning-gym/products?max_digits", "'max_digits' is no setting"),
        ("reasoning-gym/products?seed=3", "without seed and size"),
    ],
)
def test_what_the_library_does_not_have_is_refused_by_name(source, said):
    with pytest.raises(UserError, match=said):
        problems.train_pool(source)


def test_a_clone_without_the_library_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(gym.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(UserError, match="pip install -e"):
        gym.pool(STORIES, "train", 1)


def test_such_a_source_is_nothing_of_the_hub():
    assert not names.on_hub(STORIES)


@settings(max_examples=50)
@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}", " {} "]))
def test_a_number_is_read_with_and_without_commas(value, form):
    assert gym._number(form.format(value)) == value


def test_working_that_ends_in_another_answer_is_left_out():
    entry = {"question": "1 + 1?", "answer": "2", "metadata": {"answer_cot": "It is 3.\n#### 3"}}
    assert gym._made(entry, 4) is None
    entry["metadata"]["answer_cot"] = "1 + 1 = 2.\n#### 2"
    assert gym._made(entry, 4) == gym.Made("1 + 1?", "2", 4, "1 + 1 = 2.\nThe answer is \\boxed{2}.")
