"""Calls across the ranks of a process group are one process's calls with all of the input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from tests.core.distributed_case import BACKENDS, CASES, RANKS, Found

# along which each case's input is cut
ALONG = {"label_transfer": 2, "pair_loss": 0, "contrast": 0, "training_step": 0}
pytestmark = [pytest.mark.xdist_group("distributed"), pytest.mark.slow]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each rank and case, what the processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.core.distributed_case", str(rank), folder],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    errors = [rank.communicate(timeout=180)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(RANKS)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_the_whole_is_what_one_process_gets(name, backend, found):
    ranks = [Found(*of_rank[f"{name} {backend}"]) for of_rank in found]
    alone = CASES[name](backend, None, None)
    # the same to the last bit on all ranks
    for values in zip(*(rank.results for rank in ranks), strict=True):
        assert all(torch.equal(values[0], value) for value in values[1:])
    for ours, one in zip(ranks[0].results, alone.results, strict=True):
        if name.startswith("label_transfer"):
            assert torch.equal(ours, one)
        else:
            assert_close(ours, one)
    # all ranks return the same loss, and the gradient is that of their sum
    along = next((dim for start, dim in ALONG.items() if name.startswith(start)), 2)
    for parts, one in zip(zip(*(rank.own for rank in ranks), strict=True), alone.own, strict=True):
        assert_close(torch.cat(parts, along) / RANKS, one)
    for copies, one in zip(
        zip(*(rank.shared for rank in ranks), strict=True), alone.shared, strict=True
    ):
        assert_close(sum(copies) / RANKS, one)
