"""A batch that outcome and process are both tried on."""

import pytest


@pytest.fixture(scope="module")
def mixed(make_rollouts, tokenizer):
    """Right, wrong, cut before the answer, nothing at all."""
    cut = tokenizer("a6*2=2\nb2-6=6\nThe answer is").input_ids
    texts = ["a6*2=2\nb2-6=6\nThe answer is \\boxed{6}.", "The answer is \\boxed{3}.", cut, []]
    return make_rollouts([("6a*2b-6", "6", texts)])
