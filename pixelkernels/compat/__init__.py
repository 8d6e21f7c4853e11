"""Drop-in replacements for functions of public projects, with the same signatures and results: one
module per project, and `patch`, which installs them into a project.
"""

from ._patch import Patch, patch

__all__ = ["Patch", "patch"]
