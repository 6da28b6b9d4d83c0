"""Where problems come from: what `train_data` and `eval_data` say.

A source is a name, or a table of a name and how it is read:
`{path = "openai/gsm8k", name = "main", problem = "question"}` (`Source`). `train_data` is a source or a list of them,
which are mixed by their weights; `eval_data` is a source or a table of named ones, the first of which decides. A cell
keeps either as a text, a table as JSON, so that cells can be compared and hashed.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from lrd import UserError
from lrd.names import GYM, TASKS, check_name, codebook_name, nearest

KINDS = {
    "train_data": "a source: a name, a table with path, or a list of such",
    "eval_data": "a source: a name, a table with path, or a table of named sources",
}


@dataclass(frozen=True)
class Source:
    """One source of problems. Of problems that are made here, `path` alone counts; of a JSONL file, the columns too."""

    path: str  # a task, codebook-…, reasoning-gym/…, a .jsonl file, a directory of a data set or its id on the Hub
    name: str = ""  # configuration of the data set; "" is all of them
    split: str = ""  # of the data set; "" is "train" for training and "test" for evaluations
    problem: str = ""  # the column of the problem's text; "" is "problem"
    answer: str = ""  # of the gold answer, which may follow a working behind ####; "" is "answer", if there is one
    solution: str = ""  # of a solution; "" is "solution", if there is one
    weight: float = 1.0  # its share of a mixture's prompts, in proportion to the others'
    problems: int = 0  # asked of a held-out set beyond the first; 0 is eval_problems

    @property
    def text(self) -> str:
        """As a cell keeps it: the name where that is all, else JSON."""
        given = {key: value for key, value in vars(self).items() if value != FIELDS[key].default}
        return self.path if list(given) == ["path"] else json.dumps(given, ensure_ascii=False)


FIELDS = {field.name: field for field in dataclasses.fields(Source)}


class HeldOut(NamedTuple):
    """A set of held-out problems."""

    name: str  # "" of the only one without a name
    source: str
    problems: int  # that are asked


def as_text(key: str, value: Any) -> str:
    """What `train_data` or `eval_data` says, as a cell keeps it. Raises `UserError` for what is no such thing."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{key} is no JSON that can be read: {error}") from None
    if key == "train_data" and isinstance(value, list) and value:
        kept: Any = [_kept(_source(key, one)) for one in value]
    elif key == "eval_data" and isinstance(value, dict) and value and "path" not in value:
        each = enumerate(value.items())
        kept = {check_name(name, "held-out set"): _kept(_source(key, one, bool(i))) for i, (name, one) in each}
    else:
        return _source(key, value).text
    return json.dumps(kept, ensure_ascii=False)


def as_config(text: str) -> Any:
    """The same as `config.json` has it: a name, a table or a list."""
    return json.loads(text) if text[:1] in ("{", "[") else text


def _kept(source: Source) -> Any:
    return as_config(source.text)


def _source(key: str, value: Any, is_further: bool = False) -> Source:
    """One source of a setting. Raises `UserError` where a field of its table is unknown, wrong or of no use there."""
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, dict):
        raise UserError(f"{key} has {value!r}; it has to be {KINDS[key]}")
    for field, given in value.items():
        if field not in FIELDS:
            known = f"{nearest(field, FIELDS)}; it has {', '.join(FIELDS)}"
            raise UserError(f"a source of {key} has no field {field!r}{known}")
        kind = type(FIELDS[field].default) if field != "path" else str
        fits = isinstance(given, (int, float) if kind is float else kind) and not isinstance(given, bool)
        if not fits or not given or (kind is not str and not 0 < given < float("inf")):
            wanted = {str: "a text", int: "a whole number above 0", float: "a number above 0"}[kind]
            raise UserError(f"{field} of a source of {key} is {given!r}; it has to be {wanted}")
    if "path" not in value:
        raise UserError(f"a source of {key} has no path: {value}")
    source = Source(**value)
    if key == "eval_data" and "weight" in value:
        raise UserError(f"a source of eval_data has a weight ({value['path']!r}); only those of train_data are mixed")
    if "problems" in value and not is_further:
        raise UserError(f"problems of {value['path']!r} is for a held-out set beyond the first; give eval_problems")
    made = source.path in TASKS or source.path.startswith(GYM) or codebook_name(source.path)
    unused = {"name", "split"} if source.path.endswith(".jsonl") else {"name", "split", "problem", "answer", "solution"}
    if useless := sorted(unused & value.keys() if made or source.path.endswith(".jsonl") else ()):
        what = "makes its problems" if made else "is one file"
        raise UserError(f"{source.path!r} in {key} {what} and has no {' or '.join(useless)}; leave that out")
    return source


def parts(text: str) -> list[Source]:
    """All sources of what a cell's `train_data` or `eval_data` keeps."""
    value = as_config(text)
    if isinstance(value, dict) and "path" not in value:
        value = list(value.values())
    each = value if isinstance(value, list) else [value]
    return [Source(one) if isinstance(one, str) else Source(**one) for one in each]


def held_out_sets(eval_data: str, problems: int) -> list[HeldOut]:
    """The held-out sets of a cell's `eval_data`, the one that decides first; `problems` of each, unless it says."""
    value = as_config(eval_data)
    names = list(value) if isinstance(value, dict) and "path" not in value else [""]
    return [HeldOut(name, part.text, part.problems or problems) for name, part in zip(names, parts(eval_data))]
