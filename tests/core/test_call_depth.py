"""From a public function to its first operator at most four files of the package are entered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers import ROOT, sampled

PACKAGE = ROOT / "pixelkernels"


def files_before_the_operator(call: Callable[[], object]) -> set[str]:
    """The package's files with a frame before the first operator."""
    files: set[str] = set()
    started = False

    class SeesOperators(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal started
            started |= function.namespace == "pixelkernels"
            return function(*args, **(kwargs or {}))

    def profile(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and not started and path.is_relative_to(PACKAGE):
            files.add(str(path.relative_to(PACKAGE)))

    previous = sys.getprofile()
    with SeesOperators():
        sys.setprofile(profile)
        try:
            call()
        finally:
            sys.setprofile(previous)
    assert started, "no operator ran"
    return files


@sampled("cpu")
def test_at_most_four_files_to_the_operator(sample, backend):
    call = sample.call(sample.tiny)
    files = files_before_the_operator(lambda: call.function(**call.arguments, backend=backend))
    assert len(files) <= 4, sorted(files)
