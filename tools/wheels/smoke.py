"""Checks that an installed wheel has its libraries and computes what eager computes; likewise for
what pip built from source, without CUDA.

It runs in the environment of the installation, outside any checkout and without a compiler on PATH:
every public operation, forward and backward, on every usable backend.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import pixelkernels as pk
import pixelkernels.numpy as pkn
from pixelkernels._core import extension
from pixelkernels.testing.arguments import How
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "nvcc", "ninja")


def check_operations() -> dict[str, list[str]]:
    """Compares every operation on its default backend and on every usable one with eager; returns
    the backends by operation.
    """
    compared = {}
    for op in OPS.values():
        case = next(case for case in op.quick_cases if not op.cases[case].unstable)
        usable = [x for x in pk.available_backends() if x != "eager" and x in op.backends]
        for backend in (None, *usable):
            device = "cuda" if backend in ("cuda", "triton") else "cpu"
            assert_agrees(op.call(case, How(op.sizes.small[0], device=device)), backend)
        compared[op.name] = usable
    return compared


def refusal(call: Callable[[], object]) -> str:
    """The error of a call whose backend is unavailable."""
    try:
        call()
    except pk.BackendUnavailable as error:
        return str(error)
    raise AssertionError("the backend ran without its library")


def check_arrays() -> None:
    mask = np.zeros((2, 9, 11), bool)
    mask[:, 4, 5] = True
    if extension._C is None:
        assert "not built" in refusal(lambda: pkn.distance_transform(mask))
    else:
        expected = pk.distance_transform(torch.from_numpy(mask), backend="eager")
        assert np.array_equal(pkn.distance_transform(mask), expected.numpy())


def check_libraries(installed: metadata.Distribution) -> None:
    """The libraries that tag and local version promise are loaded, the others give a reason."""
    base, _, local = installed.version.partition("+")
    is_pure = "Tag: py3-none-any" in installed.read_text("WHEEL")
    is_wheel = json.loads(installed.read_text("direct_url.json"))["url"].endswith(".whl")
    reasons, build = extension.REASONS, extension.BUILD
    if is_pure:
        assert "not built" in reasons["cpu"], reasons
        mask = torch.zeros(1, 2, 2, dtype=torch.bool)
        assert "not built" in refusal(lambda: pk.distance_transform(mask, backend="cpu"))
    else:
        assert reasons["cpu"] == "", reasons
        assert build["version"] == base, build
        against = build["runs_from_torch"] if is_wheel else torch.__version__
        assert build["built_against_torch"].startswith(against), build
    if not local:
        assert "not built" in reasons["cuda"], reasons
        assert not build.get("cuda"), build
    else:
        without = f"torch {torch.__version__} is a build without CUDA"
        assert reasons["cuda"] == ("" if torch.version.cuda else without), reasons
        assert "cu" + build["cuda"].replace(".", "") == local, build
        assert build["cuda_architectures"].count("+PTX") == 1, build


def check_information(version: str) -> None:
    """`info` prints the versions, backends and reasons."""
    command = Path(sys.prefix, "bin", "pixelkernels")
    subprocess.run([command, "info"], check=True, stdout=subprocess.DEVNULL)
    facts = json.loads(subprocess.check_output([command, "info", "--json"]))
    short = subprocess.check_output([command, "--version"], text=True)
    assert f"pixelkernels {version}".startswith(short.strip()), short
    assert facts["versions"]["pixelkernels"] == version, facts["versions"]
    assert {name for name, why in facts["backends"].items() if not why} == set(
        pk.available_backends()
    ), facts["backends"]
    for name, reason in extension.REASONS.items():
        assert not reason or reason in facts["backends"][name], facts["backends"]


def main() -> None:
    package = Path(pk.__file__).resolve()
    assert package.is_relative_to(Path(sys.prefix).resolve()), f"{package} is not installed"
    assert not any(map(shutil.which, COMPILERS)), "there is a compiler on PATH"
    installed = metadata.distribution("pixelkernels")
    version = installed.version
    check_libraries(installed)
    check_information(version)
    check_arrays()
    compared = check_operations()
    reasons = {name: why or "loaded" for name, why in extension.REASONS.items() if name != "eager"}
    print(
        f"{version}, Python {sys.version.split()[0]}, torch {torch.__version__}: "
        f"{len(compared)} operations as eager computes them, "
        f"{sum(map(len, compared.values()))} comparisons of named backends "
        f"{sorted(set().union(*compared.values()))}; "
        + "; ".join(f"{name}: {why}" for name, why in reasons.items())
    )


if __name__ == "__main__":
    main()
