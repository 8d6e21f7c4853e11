"""The IS-Triplet loss and its two parts: sampling pixels, and the triplet hinge between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.modules import OptionsModule
from .._core.operators import random_seed, random_uniform, to_mask, to_object_labels
from . import ops, reference


def sample_pixels(
    mask: Tensor,
    num_samples: int,
    *,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sample pixels of each image's mask uniformly, without replacement, in random order.

    Equivalent eager code, for one image:

        index = mask[b].flatten().nonzero()[:, 0]
        pixels = index[torch.randperm(len(index))[:num_samples]]

    Args:
        mask: [B, H, W], bool or integer; nonzero is True.
        num_samples: n >= 1.
        generator: on the device of `mask`.

    Returns: [B, n] int64, flat indices. An image with fewer than n True pixels gets each of them
    once, then -1.

    There is no sort: the random order is a keyed permutation of the ranks of the True pixels, and a
    prefix sum maps ranks to pixels.
    Memory: 4 bytes per pixel.
    Source: IS-Triplet, "random sampling with different orders".

    Example:

        >>> pk.sample_pixels(torch.tensor([[[0, 1], [1, 0]]]), 3).sort().values
        tensor([[-1,  1,  2]])
    """
    check.mask("mask", mask)
    num_samples = check.count("num_samples", num_samples)
    check.generator(generator, mask)
    chosen = choose("sample_pixels", (mask,), backend)
    return draw(chosen, to_mask("mask", mask), num_samples, 1, generator)[0]


def draw(
    backend: str, mask: Tensor, num_samples: int, draws: int, generator: Generator | None
) -> tuple[Tensor, ...]:
    """`draws` samples [B, n] of True pixels, each as from its own call of `sample_pixels`."""
    if backend == "eager":
        pixels = mask.flatten(1)
        keys = [random_uniform(pixels.shape, mask.device, generator) for _ in range(draws)]
        return tuple(reference.sample_pixels(pixels, num_samples, one) for one in keys)
    seeds = torch.cat([random_seed(mask.device, generator) for _ in range(draws)])
    return ops.draw_pixels(backend, mask.contiguous(), seeds, num_samples).unbind(1)


def triplet_hinge(
    features: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    reduction: Literal["none", "mean", "sum"] = "mean",
    backend: str | None = None,
) -> Tensor:
    """The triplet hinge between the pixels of three index sets, row by row.

    hinge_k = [d(a_k, p_k) - d(a_k, n_k) + margin]_+ with d(u, v) = |u - v + eps|, or |u - v|^2 if
    `squared`. Equivalent eager code, for one image and the mean:

        a, p, n = (features[b].flatten(1)[:, i[b]].T for i in (anchor, positive, negative))
        torch.nn.functional.triplet_margin_loss(a, p, n, margin=margin, p=2, eps=eps)

    Args:
        features: [B, C, H, W].
        anchor, positive, negative: [B, K], flat indices of any integer dtype. A row with a negative
            index is absent. An index past the last pixel raises ValueError on CPU; on a device its
            row is absent.
        margin: > 0.
        squared: use squared distances, without eps.
        eps: >= 0, added to every difference.
        reduction: "none"; "mean" over the rows of an image, then over the images with a row; or
            "sum".

    Returns: a scalar, 0 without rows; for "none" [B, K], 0 in absent rows. Differentiable in
    features. As in torch, the gradient is that of the active side at the kink, and 0 at distance 0.
    Memory: 8 bytes per row and set; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 1-3.

    Example:

        >>> features, index = torch.randn(2, 16, 32, 32), torch.randint(32 * 32, (3, 2, 100))
        >>> pk.triplet_hinge(features.requires_grad_(), *index, margin=1.0).backward()
    """
    check.features("features", features)
    for name, value in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        check.integers(name, value)
        check.on_device(name, value, "features", features)
        if value.dim() != 2 or value.shape[0] != features.shape[0]:
            raise ValueError(
                f"{name}: expected shape [{features.shape[0]}, K], got {list(value.shape)}"
            )
        if value.shape != anchor.shape:
            raise ValueError(
                f"{name}: expected shape {list(anchor.shape)} as anchor, got {list(value.shape)}"
            )
    margin, squared, eps = _check_hinge(margin, squared, eps)
    check.option("reduction", reduction, ("none", "mean", "sum"))
    chosen = choose("triplet_hinge", (features, anchor, positive, negative), backend)
    sets = {"anchor": anchor.long(), "positive": positive.long(), "negative": negative.long()}
    if chosen != "cpu":
        pixels = features.shape[2] * features.shape[3]
        sets = {name: ops.check_pixels(index, name, pixels) for name, index in sets.items()}
    hinges, _, weights = ops.triplet_hinges(
        chosen,
        features,
        *(index.contiguous() for index in sets.values()),
        None,
        margin,
        squared,
        eps,
    )
    if reduction == "none":
        return hinges[:, 0]
    return hinges.sum() if reduction == "sum" else _mean(hinges, weights)


def is_triplet_loss(
    features: Tensor,
    mask: Tensor,
    *,
    num_samples: int = 5000,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    ignore_index: int = -1,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """The IS-Triplet loss: foreground pixels close to each other and far from the background.

    With two samples of K foreground pixels, F1 and F2, and two of the background, B1 and B2:

        loss = 1/2 (mean_k [d(F1_k, F2_k) - d(F1_k, B1_k) + margin]_+
                    + mean_k [d(B1_k, B2_k) - d(B1_k, F2_k) + margin]_+)

    The result equals that of four calls of `sample_pixels`, in the order F1, F2, B1, B2, cut to K
    rows, and two of `triplet_hinge`. The paper leaves the reduction over rows open; with the mean,
    margin and loss weight have the same meaning for every K.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer mask of the foreground.
        num_samples: K = min(num_samples, foreground, background) in each image.
        margin, squared, eps: as in `triplet_hinge`.
        ignore_index: where `mask` has this value, the pixel is in neither.
        generator: on the device of `mask`.

    Returns: a scalar, the mean over the images with foreground and background; 0 without any.
    Differentiable in features.
    Memory: that of `sample_pixels`, and 8 bytes per row and set; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 2-3.

    Example:

        >>> features, mask = torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3
        >>> pk.is_triplet_loss(features.requires_grad_(), mask, num_samples=100).backward()
    """
    check.features("features", features)
    check.labels("mask", mask, "features", features)
    options = _check_is_triplet(num_samples, margin, squared, eps, ignore_index)
    num_samples, margin, squared, eps, ignore_index = options
    check.generator(generator, mask)
    chosen = choose("is_triplet_loss", (features, mask), backend)
    # no image has more rows than pixels; Dynamo traces `min` alone, export of sizes sym_min alone
    pixels = mask.shape[1] * mask.shape[2]
    if any(isinstance(x, torch.SymInt) for x in (num_samples, pixels)):
        num_samples = torch.sym_max(torch.sym_min(num_samples, pixels), 1)
    else:
        num_samples = max(min(num_samples, pixels), 1)
    mask = to_object_labels("mask", mask, ignore_index)
    sides = (mask, ~mask) if mask.dtype == torch.bool else (mask > 0, mask == 0)
    sets = [pixels for side in sides for pixels in draw(chosen, side, num_samples, 2, generator)]
    hinges, _, weights = ops.triplet_hinges(chosen, features, *sets, margin, squared, eps)
    return _mean(hinges, weights)


def _check_hinge(margin: Any, squared: Any, eps: Any) -> tuple[float, bool, float]:
    return (
        check.positive("margin", margin),
        check.flag("squared", squared),
        check.number("eps", eps, minimum=0),
    )


def _check_is_triplet(
    num_samples: Any, margin: Any, squared: Any, eps: Any, ignore_index: Any
) -> tuple[Any, float, bool, float, int]:
    rows = check.integer("num_samples", num_samples, minimum=1)
    return rows, *_check_hinge(margin, squared, eps), check.label("ignore_index", ignore_index)


def _mean(hinges: Tensor, weights: Tensor) -> Tensor:
    """The mean over the rows of an image, then over the images with a row; then over the hinges."""
    return (hinges.sum(2) * weights[:, None]).sum(0).mean()


class ISTripletLoss(OptionsModule):
    """`is_triplet_loss` as a module: `loss(features, mask)`.

    Args:
        num_samples, margin, squared, eps, ignore_index, generator, backend: as in
            `is_triplet_loss`.

    Example:

        >>> loss = pk.ISTripletLoss(num_samples=100)
        >>> loss(torch.randn(2, 16, 32, 32), torch.rand(2, 32, 32) < 0.3).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        num_samples: int = 5000,
        margin: float = 3.0,
        squared: bool = False,
        eps: float = 1e-6,
        ignore_index: int = -1,
        generator: Generator | None = None,
        backend: str | None = None,
    ) -> None:
        _check_is_triplet(num_samples, margin, squared, eps, ignore_index)
        super().__init__(
            num_samples=num_samples,
            margin=margin,
            squared=squared,
            eps=eps,
            ignore_index=ignore_index,
            generator=generator,
            backend=backend,
        )

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        return is_triplet_loss(features, mask, **self.options)

    if TYPE_CHECKING:

        def __call__(self, features: Tensor, mask: Tensor) -> Tensor: ...
