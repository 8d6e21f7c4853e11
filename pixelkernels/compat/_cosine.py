"""The lower bound on norms of torch.nn.functional.cosine_similarity."""

from __future__ import annotations

from torch import Tensor

from pixelkernels._core.numerics import wide


def with_bound_1e8(x: Tensor) -> Tensor:
    """Vectors of the same direction, whose cosine has the lower bound 1e-8 on the norms of `x`: the
    library's is 1e-12. It shows in the gradient of a zero vector."""
    return 1e-4 * wide(x)
