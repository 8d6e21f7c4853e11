"""What the suites share: backends and their devices, fresh processes, and looks at a call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pixelkernels._core import dispatch
from pixelkernels.testing.arguments import Dims, How
from pixelkernels.testing.memory import peak_resident
from pixelkernels.testing.op import Call, Case, Op
from pixelkernels.testing.samples import OPS
from tests import cuda_on_cpu

ROOT = Path(__file__).parent.parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# the device that the tests of a backend run on
DEVICES = {
    "eager": "cpu",
    "cpu": "cpu",
    "triton": "cpu" if INTERPRETED else "cuda",
    "cuda": "cpu" if cuda_on_cpu.VARIANT else "cuda",
}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="minutes under Triton's interpreter")


def backends(*names: str) -> list[Any]:
    """Parameters for `backend`; one that needs a GPU is skipped on a machine without."""
    return [
        pytest.param(name, marks=[needs_gpu] if DEVICES[name] == "cuda" else []) for name in names
    ]


def keep_backends(config: pytest.Config, items: list[pytest.Item], *names: str) -> None:
    """Deselect the tests that are not of these backends."""

    def backend(item: pytest.Item) -> Any:
        return item.callspec.params.get("backend") if hasattr(item, "callspec") else None

    config.hook.pytest_deselected(items=[item for item in items if backend(item) not in names])
    items[:] = [item for item in items if backend(item) in names]


def first_quick(*values: Any, when: bool = True) -> list[Any]:
    """Parameters of which `make test` takes the first one alone."""
    first, *others = values
    return [first, *(pytest.param(x, marks=[pytest.mark.slow] if when else []) for x in others)]


def run_python(
    code: str, path: Path | None = None, timeout: float = 120, **environment: str
) -> str:
    """Standard output of a fresh process, which imports the package from `path` if it is given."""
    folders = [str(path)] if path else []
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *sys.path]), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=known,
        cwd=path,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def peak_extra_bytes(call: Callable[[], object], *, warm_up: bool = True) -> int:
    """How far a call raises the peak resident memory above what is resident before it."""
    if warm_up:
        call()
    return peak_resident(call)


class Sample(NamedTuple):
    """A case of an operation in the registry."""

    op: Op
    case: str

    @property
    def tiny(self) -> Dims:
        sizes = self.op.sizes
        return (INTERPRETED and sizes.interpreted) or sizes.tiny

    def call(self, dims: Dims | None = None, device: str = "cpu", **how: Any) -> Call:
        dims = dims or (self.tiny if INTERPRETED else self.op.sizes.small[0])
        return self.op.call(self.case, How(dims, device=device, **how))


def sampled(
    *names: str,
    dtypes: Sequence[torch.dtype] = (),
    cost: int = 1,
    when: Callable[[Op, Case], object] = lambda op, case: True,
) -> pytest.MarkDecorator:
    """Parametrize a test over the registry and those of the backends that an operation has.

    `cost` says how many cases of an operation a test takes, and the interpreter adds 1 to it. Up to
    1: all, in `make test` those that stand for the operation. 2: those that stand for it, in `make
    test` the first of them. From 3 on: the first, in `make test-all` alone. With `dtypes` the test
    also gets `dtype`, those that the backend supports, which take turns at the cases in `make test`
    under the interpreter; an operation without differentiable arguments has no dtype but float32.
    """
    parameters = []
    turn = 0
    for op in OPS.values():
        some = op.quick_cases
        of_cost = {2: (some, some[:1]), 3: (some[:1], ())}
        tested, quick = of_cost.get(min(cost + INTERPRETED, 3), (tuple(op.cases), some))
        for case, backend in product(tested, names):
            if backend not in op.backends or not when(op, op.cases[case]):
                continue
            marks = [needs_gpu] if DEVICES[backend] == "cuda" else []
            marks += [] if case in quick else [pytest.mark.slow]
            values = [Sample(op, case), backend]
            title = "-".join(filter(None, (op.name, case.replace(" ", "_"), backend)))
            if not dtypes:
                parameters.append(pytest.param(*values, marks=marks, id=title))
                continue
            known = dtypes if op.differentiable else (torch.float32,)
            if backend != "eager":
                known = tuple(x for x in known if x in supported_dtypes(backend))
            turn += 1
            for i, dtype in enumerate(known):
                later = INTERPRETED and (i + turn) % len(known)
                all_marks = [*marks, pytest.mark.slow] if later else marks
                name = str(dtype).removeprefix("torch.")
                parameters.append(
                    pytest.param(*values, dtype, marks=all_marks, id=f"{title}-{name}")
                )
    return pytest.mark.parametrize("sample, backend" + (", dtype" if dtypes else ""), parameters)


def supported_dtypes(backend: str) -> tuple[torch.dtype, ...]:
    # NumPy has no bfloat16, and Triton's interpreter multiplies matrices of it wrongly
    known = dispatch.DTYPES[backend]
    return tuple(x for x in known if not (INTERPRETED and x == torch.bfloat16))


def all_sizes(op: Op) -> tuple[Dims, ...]:
    if INTERPRETED:
        return (op.sizes.interpreted,) if op.sizes.interpreted else op.sizes.small
    return (*op.sizes.small, *op.sizes.ordinary)


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """The same bits, NaN included."""
    assert one.keys() == other.keys()
    for name, x in one.items():
        assert x.shape == other[name].shape, name
        same = (x == other[name]) | ((x != x) & (other[name] != other[name]))
        assert same.all(), f"{name}: {int((~same).sum())} of {x.numel()} differ"
