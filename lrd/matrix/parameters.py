"""What papermill gives a notebook."""

import ast

from IPython.core.getipython import get_ipython

from lrd import UserError
from lrd.names import nearest


def check() -> None:
    """Raises `UserError` where papermill has given the notebook a name that its parameters do not have, or no mapping.

    Papermill writes what it is given into a cell of its own behind the parameters and only warns of a misspelled name.
    To be called from the third cell that runs; of a notebook that is run by hand it says nothing.
    """
    shell = get_ipython()
    overrides = {} if shell is None else shell.user_ns.get("overrides", {})
    if not isinstance(overrides, dict):
        raise UserError(f"overrides is {overrides!r}; it takes settings by name: -y 'overrides: {{steps: 20}}'")
    ran = [] if shell is None else [cell for cell in shell.user_ns["In"][1:-1] if cell]
    if len(ran) == 2:
        known, given = (_assigned(cell) for cell in ran)
        for name in given:
            if name not in known:
                takes = ", ".join(known)
                raise UserError(f"the notebook has no parameter {name!r}{nearest(name, known)}; it takes {takes}")


def _assigned(cell: str) -> list[str]:
    """The names that a cell assigns."""
    nodes = ast.walk(ast.parse(cell))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
