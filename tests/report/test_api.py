"""The API page: every module is on it, and a signature reads as it does in the source."""

import ast
import subprocess
import sys

from lrd import ROOT
from lrd.report import api


def test_every_module_is_in_one_room():
    listed = [name for block in api.BLOCK.findall((ROOT / "book" / "api.md").read_text()) for name in block.split()]
    assert sorted(listed) == sorted(api.modules())


def test_the_run_page_has_the_settings():
    source = [(ROOT / "book" / "run.md").read_text()]
    api._expand(None, "book/run", source)
    assert "| `steps` | a whole number | `100` | rollouts of the whole run, each with its updates |" in source[0]
    assert api.SETTINGS not in source[0] and source[0].count("\n| `") >= 45
    assert "codebook-\\<keys>" in source[0]  # no tag


def test_a_room(tmp_path):
    (tmp_path / "lrd").mkdir()
    (tmp_path / "lrd" / "room.py").write_text(
        '"""A room."""\n\nLIMIT = 3\n"""How many."""\n\n\n'
        "def act(a: Float[Tensor, 'N T'], *, b: int = 2) -> Bool[Tensor, ' N']:\n"
        '    """Acts.\n\n    Twice."""\n\n\n'
        "def _hidden(): ...\n\n\n"
        'class Thing(NamedTuple):\n    """A thing."""\n\n    size: int  # metres\n\n'
        '    @property\n    def half(self) -> float:\n        """Half of it."""\n\n'
        "    @classmethod\n    def make(cls, size: int) -> 'Thing': ...\n"
    )
    text = api.room("lrd.room", tmp_path)
    assert "### `lrd.room`" in text and "A room." in text and "_hidden" not in text
    assert (
        ":::{py:function} act(a: Float[Tensor, 'N T'], *, b: int=2) -> Bool[Tensor, 'N']\n\nActs.\n\nTwice.\n:::"
        in text
    )
    assert "::::{py:class} Thing\n\nA thing.\n\n:::{py:attribute} size\n:type: int\n\nmetres\n:::" in text
    assert ":::{py:property} half\n:type: float\n\nHalf of it.\n:::" in text
    assert ":::{py:method} make(size: int) -> 'Thing'\n:classmethod:\n" in text
    assert ":::{py:data} LIMIT\n:value: 3\n\nHow many.\n:::" in text


def test_a_static_method_keeps_its_first_parameter():
    function = ast.parse("@staticmethod\ndef f(a, b): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert api.signature(function, method=True) == "(a, b)"


def test_the_page_needs_no_torch():
    code = (
        "import sys; from lrd.report import api; [api.room(m) for m in api.modules()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
