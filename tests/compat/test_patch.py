"""`patch` replaces a project's functions, and `undo` restores them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage

from pixelkernels import compat
from pixelkernels.compat import ritm, scipy
from pixelkernels.compat._patch import PROJECTS


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A package laid out like RITM's; one of its modules imports DistMaps by name."""
    files = {
        "__init__.py": "",
        "model/__init__.py": "",
        "model/ops.py": "class DistMaps: ...\n",
        "model/is_model.py": "from .ops import DistMaps\n",
        "inference/__init__.py": "",
        "inference/clicker.py": "class Clicker:\n    def _get_next_click(self): ...\n",
        "engine/__init__.py": "",
        "engine/trainer.py": "def get_next_points(): ...\n",
    }
    for name, text in files.items():
        path = tmp_path / "their_isegm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "their_isegm"
    for name in [key for key in sys.modules if key.split(".")[0] == "their_isegm"]:
        del sys.modules[name]


def test_patch_and_undo(project):
    from their_isegm.engine import trainer
    from their_isegm.inference.clicker import Clicker
    from their_isegm.model import is_model, ops

    def bound():
        maps = (ops.DistMaps, is_model.DistMaps)
        return (*maps, vars(Clicker)["_get_next_click"], trainer.get_next_points)

    before = bound()
    ours = (ritm.DistMaps, ritm.DistMaps, ritm.get_next_click, ritm.get_next_points)
    with compat.patch("ritm", package="their_isegm"):
        assert bound() == ours
    assert bound() == before
    patched = compat.patch("ritm", package="their_isegm")
    assert bound() == ours
    patched.undo()
    patched.undo()
    assert bound() == before


def test_patched_scipy_serves_what_is_not_replaced():
    volume = np.zeros((4, 5, 6))
    volume[1:3, 1:4, 2:5] = 1
    expected = ndimage.distance_transform_edt(volume)
    with compat.patch("scipy"):
        assert ndimage.distance_transform_edt is scipy.distance_transform_edt
        assert np.array_equal(ndimage.distance_transform_edt(volume), expected)
        both = ndimage.distance_transform_edt(volume[1], return_indices=True)
    assert len(both) == 2


def test_patch_names_what_is_missing_and_replaces_nothing(project):
    (project / "engine" / "trainer.py").write_text("")
    with pytest.raises(AttributeError, match=r"their_isegm.engine.trainer has no get_next_points"):
        compat.patch("ritm", package="their_isegm")
    from their_isegm.model import ops

    assert ops.DistMaps is not ritm.DistMaps
    with compat.patch("ritm", "DistMaps", package="their_isegm"):
        assert ops.DistMaps is ritm.DistMaps
    with pytest.raises(ValueError, match="expected some of DistMaps, "):
        compat.patch("ritm", "DistanceMaps", package="their_isegm")
    with pytest.raises(ImportError, match=r"no module absent.model.ops to patch"):
        compat.patch("ritm", package="absent")
    with pytest.raises(ValueError, match="expected one of"):
        compat.patch("unknown")


def stand_in(monkeypatch, root, target):
    """Create the modules and classes of a target; returns the owner and name of its attribute."""
    module, _, name = target.partition(":")
    path = [root, *module.split(".")] if module else [root]
    for end in range(1, len(path) + 1):
        full = ".".join(path[:end])
        if full not in sys.modules:
            created = ModuleType(full)
            created.__path__ = []
            monkeypatch.setitem(sys.modules, full, created)
    owner = sys.modules[".".join(path)]
    *classes, last = name.split(".")
    for each in classes:
        setattr(owner, each, vars(owner).get(each) or type(each, (), {}))
        owner = vars(owner)[each]
    setattr(owner, last, object())
    return owner, last


@pytest.mark.parametrize("name", PROJECTS)
def test_every_target_of_a_project_is_replaced_and_restored(name, monkeypatch):
    ours = importlib.import_module(f"pixelkernels.compat.{name}")
    owners = {target: stand_in(monkeypatch, "their_package", target) for target in ours.REPLACES}

    def bound():
        return {target: vars(owner)[last] for target, (owner, last) in owners.items()}

    before = bound()
    with compat.patch(name, package="their_package"):
        assert bound() == ours.REPLACES
    assert bound() == before
    assert ours.PACKAGE
