"""lrd: does the LoRA rank that reinforcement learning needs grow with the density of its reward?"""

import warnings
from pathlib import Path

# Progress is shown as text, so that a stored notebook keeps it; libraries need not ask for a widget.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"

ROOT = Path(__file__).resolve().parent.parent
"""The clone. Notebooks, runs and relative model paths are found from here, whatever the working directory."""


class UserError(Exception):
    """Input that cannot work, said in one sentence: what, where, what would be right. The command line exits with 2."""
