"""The public functions of the triplet family: argument checks and documentation.

Shared by all of them:

- Features are float16, bfloat16, float32 or float64, [B, C, H, W] in any strides. Distances are
  accumulated, and losses returned, in float32 (float64 for float64, on `cpu` and `eager`).
- A pixel is a flat index, row * W + column; -1 stands for none.
- The gradient is written once, densely, in the layout of the features; a pixel that occurs several
  times adds up in a fixed order.
- `backend` asks for one of "cpu", "triton" and "eager"; None takes the first usable one. A backend
  that was asked for and cannot serve raises `BackendUnavailable`.
- cpu and triton give the same bits on every run, do not wait for the device, and differentiate
  once. The same generator state gives the same pixels on one backend.
- Wrong dtypes and types raise TypeError, wrong shapes, devices and options ValueError, before
  anything is launched.
"""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from .._core import validation as check
from . import algebra


def sample_pixels(
    mask: Tensor,
    num_samples: int,
    *,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """Draw pixels of each image's mask: uniformly, without replacement, in random order.

    Equivalent eager code, for one image:

        place = mask[b].flatten().nonzero()[:, 0]
        pixels = place[torch.randperm(len(place))[:num_samples]]

    Args:
        mask: [B, H, W], bool or integer; nonzero is inside.
        num_samples: n >= 1.
        generator: on the device of `mask`.

    Returns: [B, n] int64. An image with fewer than n pixels inside gets each of them once, and then
    -1 to the end.

    The pixels inside are counted, not sorted: a random order is a keyed permutation of their ranks.
    Memory: 4 bytes per pixel.
    Source: IS-Triplet, "random sampling with different orders".
    """
    _check_mask(mask)
    check.count("num_samples", num_samples)
    check.generator(generator, mask)
    return algebra.sample_pixels(mask, num_samples, generator, backend)


def triplet_hinge(
    features: Tensor,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
    backend: str | None = None,
) -> Tensor:
    """The triplet hinge between the pixels of three sets, row by row.

    hinge_k = [d(a_k, p_k) - d(a_k, n_k) + margin]_+ with d(u, v) = |u - v + eps|, or |u - v|^2. For
    one image and the mean this is

        a, p, n = (features[b].flatten(1)[:, i[b]].T for i in (anchor, positive, negative))
        torch.nn.functional.triplet_margin_loss(a, p, n, margin=margin, p=2, eps=eps)

    Args:
        features: [B, C, H, W].
        anchor, positive, negative: [B, K], any integer dtype; a row with a negative one is absent.
        margin: > 0.
        squared: squared distances, without eps.
        eps: >= 0, added to every difference.
        reduction: "mean" over the rows of an image and then over the images that have any, "sum",
            or "none".

    Returns: 0-d, or [B, K] for "none", with 0 in absent rows; 0 where there is no row. As torch has
    it, the gradient at the kink is that of the active side, and that of a distance 0 is 0.
    Differentiable in features. An index past the last pixel raises ValueError on CPU; elsewhere its
    row is absent.
    Memory: 8 bytes per row and set; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 1-3.
    """
    check.features("features", features)
    for name, value in (("anchor", anchor), ("positive", positive), ("negative", negative)):
        check.integers(name, value)
        check.on_device(name, value, features, "features")
        if value.dim() != 2 or value.shape[0] != features.shape[0]:
            raise ValueError(
                f"{name}: expected shape [{features.shape[0]}, K], got {list(value.shape)}"
            )
        if value.shape != anchor.shape:
            raise ValueError(
                f"{name}: expected shape {list(anchor.shape)} as anchor, got {list(value.shape)}"
            )
    _check_hinge(margin, squared, eps)
    check.option("reduction", reduction, ("mean", "sum", "none"))
    return algebra.triplet_hinge(
        features, anchor, positive, negative, margin, squared, eps, reduction, backend
    )


def is_triplet_loss(
    features: Tensor,
    mask: Tensor,
    *,
    num_samples: int = 5000,
    margin: float = 3.0,
    squared: bool = False,
    eps: float = 1e-6,
    generator: Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """The IS-Triplet loss: foreground pixels near each other, and away from the background.

    With two draws of K foreground pixels, F1 and F2, and two of the background, B1 and B2,

        loss = 1/2 (mean_k [d(F1_k, F2_k) - d(F1_k, B1_k) + margin]_+
                    + mean_k [d(B1_k, B2_k) - d(B1_k, F2_k) + margin]_+)

    exactly as from four calls of `sample_pixels`, in the order F1, F2, B1, B2, cut to K rows, and
    two of `triplet_hinge`. The paper does not say how it reduces over rows; the mean is what keeps
    its margin and weight meaningful for every K.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer: 1 foreground, 0 background, anything else neither.
        num_samples: the most rows per image: K = min(num_samples, foreground, background).
        margin, squared, eps: as in `triplet_hinge`.
        generator: on the device of `mask`.

    Returns: 0-d; the mean over the images that have foreground and background, 0 without any.
    Differentiable in features.
    Memory: 8 bytes per row and set, those of `sample_pixels`; backward, the gradient.
    Source: IS-Triplet, eq. 4; squared: eqs. 1-3.
    """
    check.features("features", features)
    check.per_pixel("mask", _check_mask(mask), features)
    check.integer("num_samples", num_samples, minimum=1)
    _check_hinge(margin, squared, eps)
    check.generator(generator, mask)
    return algebra.is_triplet_loss(
        features, mask, num_samples, margin, squared, eps, generator, backend
    )


def _check_mask(mask: Any) -> Tensor:
    check.integers("mask", mask)
    if mask.dim() != 3:
        raise ValueError(f"mask: expected shape [B, H, W], got {list(mask.shape)}")
    return mask


def _check_hinge(margin: Any, squared: Any, eps: Any) -> None:
    check.positive("margin", margin)
    check.flag("squared", squared)
    check.number("eps", eps, minimum=0)
