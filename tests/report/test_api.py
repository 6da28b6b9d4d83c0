"""The API page: every module is on it, and a signature reads as it does in the source."""

import ast
import re
import subprocess
import sys

from lrd import ROOT
from lrd.report import api


def test_every_module_is_on_the_page_below_its_package():
    source = [(ROOT / "book" / "api.md").read_text()]
    api._expand(None, "book/api", source)
    names = re.findall(r"(?m)^##+ `(.*)`$", source[0])
    assert len(names) == len(set(names)) == len(list((ROOT / "lrd").rglob("*.py")))
    packages = re.findall(r"(?m)^## `(.*)`$", source[0])
    assert packages.index("lrd.matrix") < packages.index("lrd.train") < packages.index("lrd.cell")
    assert all(name.startswith(tuple(packages)) for name in names)
    assert names.index("lrd.train") < names.index("lrd.train.loop") < names.index("lrd.grpo")


def test_the_page_on_ones_own_study_has_the_settings():
    source = [(ROOT / "book" / "study.md").read_text()]
    api._expand(None, "book/study", source)
    assert "| `steps` | a whole number | `100` | rollouts of the whole run, each with its updates |" in source[0]
    assert api.SETTINGS not in source[0] and source[0].count("\n| `") >= 45
    assert "codebook-\\<keys>" in source[0]  # no tag


def test_a_module(tmp_path):
    (tmp_path / "lrd").mkdir()
    (tmp_path / "lrd" / "room.py").write_text(
        '"""A module."""\n\nLIMIT = 3\n"""How many."""\n\n\n'
        "def act(a: Float[Tensor, 'N T'], *, b: int = 2) -> Bool[Tensor, ' N']:\n"
        '    """Acts.\n\n    Twice."""\n\n\n'
        "def _hidden(): ...\n\n\n"
        'class Thing(NamedTuple):\n    """A thing."""\n\n    size: int  # metres\n\n'
        '    @property\n    def half(self) -> float:\n        """Half of it."""\n\n'
        "    @classmethod\n    def make(cls, size: int) -> 'Thing': ...\n"
    )
    text = api.described("lrd.room", root=tmp_path)
    assert "### `lrd.room`" in text and "A module." in text and "_hidden" not in text
    assert (
        ":::{py:function} act(a: Float[Tensor, 'N T'], *, b: int=2) -> Bool[Tensor, 'N']\n\nActs.\n\nTwice.\n:::"
        in text
    )
    assert "::::{py:class} Thing\n\nA thing.\n\n:::{py:attribute} size\n:type: int\n\nmetres\n:::" in text
    assert ":::{py:property} half\n:type: float\n\nHalf of it.\n:::" in text
    assert ":::{py:method} make(size: int) -> 'Thing'\n:classmethod:\n" in text
    assert ":::{py:data} LIMIT\n:value: 3\n\nHow many.\n:::" in text


def test_a_type_of_ours_is_named_in_full(tmp_path):
    """So that its link leads to the module that it is imported from, whichever others have such a name."""
    (tmp_path / "lrd").mkdir()
    source = "from lrd.one import Pair\nfrom pathlib import Path\n\ndef act(pair: Pair, at: Path) -> list[Pair]: ...\n"
    (tmp_path / "lrd" / "two.py").write_text(source)
    text = api.described("lrd.two", root=tmp_path)
    assert "act(pair: lrd.one.Pair, at: Path) -> list[lrd.one.Pair]" in text


def test_a_static_method_keeps_its_first_parameter():
    function = ast.parse("@staticmethod\ndef f(a, b): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert api.signature(function, method=True) == "(a, b)"


def test_the_page_needs_no_torch():
    code = "from lrd.report import api; [api.described(*module) for module in api.outline()]"
    code = f"import sys; {code}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
