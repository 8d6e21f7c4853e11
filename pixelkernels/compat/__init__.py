"""Drop-ins with the signatures and results of public projects' functions: one module for each
project, and `patch`, which swaps them in an installed one.
"""

from ._patch import Patch, patch

__all__ = ["Patch", "patch"]
