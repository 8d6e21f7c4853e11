"""`patch` replaces a project's functions, and `undo` restores them."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage

from benchmarks.ops.compat.signatures import ORIGINALS, fits
from pixelkernels import compat
from pixelkernels.compat import contrastiveseg, ritm, sam3, scipy
from pixelkernels.compat._patch import PROJECTS
from tests.helpers import ROOT

DIST_MAPS = """
class DistMaps:
    def __init__(self, norm_radius, spatial_scale=1.0, cpu_mode=False, use_disks=False): ...
    def get_coord_features(self, points, batchsize, rows, cols): ...
    def forward(self, x, coords): ...
"""
CLICKER = """
class Clicker:
    def _get_next_click(self, pred_mask, padding=True): ...
"""
NEXT_POINTS = "def get_next_points(pred, gt, points, click_indx, pred_thresh=0.49): ..."


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes the modules of a package, given as {path: code}."""
    names = set()

    def write(name, files):
        names.add(name)
        for file, code in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in [key for key in sys.modules if key.split(".")[0] in names]:
        del sys.modules[name]


@pytest.fixture
def project(package):
    """A package laid out like RITM's; one of its modules imports DistMaps by name. Returns a
    function that replaces code before it is imported."""
    files = {
        "__init__.py": "",
        "model/__init__.py": "",
        "model/ops.py": DIST_MAPS,
        "model/is_model.py": "from .ops import DistMaps\n",
        "inference/__init__.py": "",
        "inference/clicker.py": CLICKER,
        "engine/__init__.py": "",
        "engine/trainer.py": NEXT_POINTS,
    }
    package("their_isegm", files)
    return lambda file, code: package("their_isegm", {file: code})


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
    project("engine/trainer.py", "")
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


OPS, INFERENCE, ENGINE = "model/ops.py", "inference/clicker.py", "engine/trainer.py"


@pytest.mark.parametrize(
    ("file", "old", "new", "refused"),
    [
        # SegNext
        (
            OPS,
            "points, batchsize, rows, cols",
            "points, rows, cols, n",
            "DistMaps.get_coord_features",
        ),
        (OPS, "norm_radius, ", "", "DistMaps"),
        (OPS, "use_disks", "disks", "DistMaps"),
        (OPS, "cpu_mode=False, use_disks=False", "use_disks=False, cpu_mode=False", "DistMaps"),
        (OPS, "x, coords", "x, coords, scale=1", "DistMaps.forward"),
        (OPS, "x, coords", "x, coords, *, scale", "DistMaps.forward"),
        (INFERENCE, "self, pred_mask", "self, mask", "Clicker._get_next_click"),
        (INFERENCE, "self, pred_mask", "self", "Clicker._get_next_click"),
        (ENGINE, "click_indx", "click_indx=1", "get_next_points"),
        (ENGINE, "gt, points", "points, gt", "get_next_points"),
    ],
)
def test_patch_refuses_an_original_with_other_parameters(project, file, old, new, refused):
    code = {OPS: DIST_MAPS, INFERENCE: CLICKER, ENGINE: NEXT_POINTS}[file]
    project(file, code.replace(old, new))
    module = f"their_isegm.{file[:-3].replace('/', '.')}"
    with pytest.raises(TypeError, match=rf"patch: {module}.{refused}\(.* allows calls that"):
        compat.patch("ritm", package="their_isegm")
    from their_isegm.engine import trainer
    from their_isegm.inference.clicker import Clicker
    from their_isegm.model import ops

    for owner in (ops.DistMaps, Clicker._get_next_click, trainer.get_next_points):
        assert owner.__module__.startswith("their_isegm")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (OPS, DIST_MAPS.replace(", use_disks=False", "")),  # f-BRS
        (OPS, DIST_MAPS.replace("use_disks", "*, use_disks")),
        (OPS, "class DistMaps:\n    def __init__(self, *args, **kwargs): ..."),
        (OPS, DIST_MAPS + "    def draw(self, points): ..."),
        (INFERENCE, CLICKER.replace("self, pred_mask", "clicker, pred_mask")),
        (ENGINE, "def get_next_points(*args, **kwargs): ..."),
        (ENGINE, "def get_next_points(pred, gt, *others): ..."),
        (ENGINE, NEXT_POINTS.replace("0.49", "0.5")),
        (ENGINE, "get_next_points = max"),  # has no signature
    ],
)
def test_patch_replaces_an_original_whose_calls_ours_allows(project, file, code):
    project(file, code)
    with compat.patch("ritm", package="their_isegm"):
        from their_isegm.engine import trainer
        from their_isegm.inference.clicker import Clicker
        from their_isegm.model import ops

        found = (ops.DistMaps, Clicker._get_next_click, trainer.get_next_points)
    assert found == (ritm.DistMaps, ritm.get_next_click, ritm.get_next_points)


CONTRAST = "class PixelContrastLoss:\n    def __init__(self, configer): ...\n"


def test_patch_replaces_what_several_modules_define_in_all_of_them_or_in_one(package):
    names = ("loss_contrast", "loss_contrast_mem")
    files = {f"loss/{name}.py": CONTRAST for name in names}
    package("their_lib", {"__init__.py": "", "loss/__init__.py": "", **files})
    modules = [importlib.import_module(f"their_lib.loss.{name}") for name in names]

    def replaced(*names):
        with compat.patch("contrastiveseg", *names, package="their_lib"):
            return [
                module.PixelContrastLoss is contrastiveseg.PixelContrastLoss for module in modules
            ]

    assert replaced() == replaced("PixelContrastLoss") == [True, True]
    assert replaced("loss.loss_contrast_mem:PixelContrastLoss") == [False, True]
    assert replaced(*contrastiveseg.REPLACES, "PixelContrastLoss") == [True, True]
    assert all(module.PixelContrastLoss.__module__ == module.__name__ for module in modules)


SAM3 = """
from sam3.model.edt import edt_triton
def sample_one_point_from_error_center(gt_masks, pred_masks, padding=True): ...
def sample_random_points_from_errors(gt_masks, pred_masks, num_pt=1): ...
"""


def test_sam3_takes_the_place_of_a_module_that_cannot_be_imported(package, monkeypatch):
    edt = "import a_module_that_does_not_exist\ndef edt_triton(data): ..."
    files = {"edt.py": edt, "sam3_tracker_utils.py": SAM3, "__init__.py": ""}
    package("sam3", {"__init__.py": "", **{f"model/{name}": files[name] for name in files}})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sam3.model.sam3_tracker_utils")
    monkeypatch.setitem(sys.modules, "sam3.model.edt", sam3)
    utils = importlib.import_module("sam3.model.sam3_tracker_utils")
    assert utils.edt_triton is sam3.edt_triton
    original = utils.sample_one_point_from_error_center
    with compat.patch("sam3"):
        found = utils.sample_one_point_from_error_center
        assert found is sam3.sample_one_point_from_error_center
        assert utils.edt_triton is sam3.edt_triton
    assert utils.sample_one_point_from_error_center is original


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


@pytest.mark.parametrize("name", ORIGINALS)
def test_replacement_allows_the_calls_of_the_original(name):
    assert fits(name)


def test_every_replacement_has_the_signature_of_its_original():
    replaced = {
        f"{value.__module__.rpartition('.')[2]}.{value.__qualname__}"
        for name in PROJECTS
        for value in importlib.import_module(f"pixelkernels.compat.{name}").REPLACES.values()
    }
    assert replaced <= ORIGINALS.keys()


def test_every_replacement_is_compared_with_its_original():
    """In the committed results of `benchmarks.compat`."""
    files = (ROOT / "benchmarks" / "results").glob("*/compat/compat.json")
    for rows in (json.loads(file.read_text())["rows"] for file in files):
        compared = {row["ours_is"] for row in rows}
        assert {name for name in ORIGINALS if name.count(".") == 1} - compared == set()
        assert all(row["signature"] for row in rows if row["ours_is"] in ORIGINALS)
