"""A preset's cells, each through its notebook: papermill executes one, Ray runs them side by side.

`plan` knows the cells and refuses what cannot work before anything starts. `notebook` executes a notebook, `execute`
that of one cell or of one study, `launch` those of all cells over Ray, which `cluster` starts. `doctor` examines a
host.
"""

from lrd.matrix.plan import cells

__all__ = ["cells"]
