"""Prompts that the sampler's tests complete."""

import pytest

TEXTS = ["Last digit:6a*2b-6c+3\n", "1a+2", "Last digit:9a-9b-9c*8d+7e*1f-0\na", "=", "b", "The answer is", "3*3=9\n"]


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[list[int]]:
    """Seven, of 1 to 28 tokens."""
    return [tokenizer(text).input_ids for text in TEXTS]
