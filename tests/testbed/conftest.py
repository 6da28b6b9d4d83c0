"""What the tests of the pretrained testbed share: SmolLM2 as a checkpoint."""

from pathlib import Path

import pytest

from lrd import UserError


@pytest.fixture(scope="session")
def smollm2(once) -> Path:
    """Its directory; skips where the weights or their reader are not at hand. Tests only read it: 540 MB, 20 s."""
    pytest.importorskip("gguf", reason="needs the extra `pretrained`")
    from lrd.testbed import pretrained

    try:
        pretrained.fetch()
    except UserError as error:
        pytest.skip(str(error))
    return once("smollm2", pretrained.save_checkpoint)
