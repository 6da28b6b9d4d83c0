"""Every page that only reads runs executes, over whatever runs this clone has."""

from collections.abc import Iterator

import pytest

from lrd import ROOT
from lrd.report import book
from lrd.runs.kernel import Kernel, sockets

TRAINING = ("cell", "baseline", "rewards")  # these make runs
PAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb") if path.stem not in TRAINING)


@pytest.fixture(scope="module")
def kernels(once) -> Iterator[list[Kernel]]:
    """One for all pages, as the book has it: the next need not import and read what the last one has."""
    with pytest.MonkeyPatch.context() as patch, sockets() as ip:
        patch.setenv("LRD_CACHE", str(once("frames", lambda path: None)))
        kernels = [Kernel(transport="ipc", ip=ip)]
        yield kernels
        book.stop(kernels[0])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_executes(page, kernels):
    try:
        book.execute(ROOT / "notebooks" / f"{page}.ipynb", kernels[0])
    except Exception:  # it takes the kernel with it
        book.stop(kernels[0])
        kernels[0] = Kernel(transport="ipc", ip=kernels[0].ip)
        raise


def test_these_are_the_pages_of_the_book():
    listed = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES if f"notebooks/{page}" not in listed] == []
