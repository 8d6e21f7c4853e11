"""Sums and concatenations over the ranks of a process group, differentiable.

Every rank of the group must make the call, in the same order, and run its backward. As for torch's
own collectives, the gradient is that of the sum of all ranks' losses. DistributedDataParallel
averages over the ranks: if all of them return the same loss, this gives the gradient of that loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # a torch built without torch.distributed lacks it
    from torch.distributed import ProcessGroup

# operators take the name of a group: schemas have no type for groups
_library = torch.library.Library("pixelkernels", "FRAGMENT")


def total(values: Tensor, group: str | None) -> Tensor:
    """The sum over the ranks; `values` themselves without a group."""
    return values if group is None else torch.ops.pixelkernels.rank_sum(values, group)


def gathered(values: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """The values of all ranks, equal in shape, concatenated along `dim`."""
    whole = torch.ops.pixelkernels.rank_gather(
        values.movedim(dim, 0).contiguous(), group.group_name, group.size()
    )
    return whole.movedim(0, dim)


def _sum(values: Tensor, group: str) -> Tensor:
    return _finished(torch.ops._c10d_functional.all_reduce(values.contiguous(), "sum", group))


def _gather(values: Tensor, group: str, ranks: int) -> Tensor:
    return _finished(torch.ops._c10d_functional.all_gather_into_tensor(values, ranks, group))


def _own_part(values: Tensor, group: str, ranks: int) -> Tensor:
    return _finished(
        torch.ops._c10d_functional.reduce_scatter_tensor(values.contiguous(), "sum", ranks, group)
    )


def _finished(values: Tensor) -> Tensor:
    return torch.ops._c10d_functional.wait_tensor(values)


def _save_group(ctx: Any, inputs: Any, output: Tensor) -> None:
    _, *ctx.ranks = inputs


def _define(signature: str, run: Any, fake: Any, backward: Any) -> None:
    name = signature.split("(")[0]
    _library.define(signature)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"pixelkernels::{name}", fake, lib=_library)
    torch.library.register_autograd(
        f"pixelkernels::{name}", backward, setup_context=_save_group, lib=_library
    )


_define(
    "rank_sum(Tensor values, str group) -> Tensor",
    _sum,
    lambda values, group: torch.empty_like(values),
    lambda ctx, grad: (_sum(grad, *ctx.ranks), None),
)
_define(
    "rank_gather(Tensor values, str group, int ranks) -> Tensor",
    _gather,
    lambda values, group, ranks: values.new_empty(ranks * values.shape[0], *values.shape[1:]),
    lambda ctx, grad: (_own_part(grad, *ctx.ranks), None, None),
)
