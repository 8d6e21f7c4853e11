"""MONAI's distance transform, `monai.transforms.utils.distance_transform_edt`, the losses on it,
`monai.losses.HausdorffDTLoss` and `LogHausdorffDTLoss`, and the surface metrics of
`monai.metrics`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from pixelkernels.distance import distance_transform, hausdorff_loss

from ._monai_metrics import class_masks, of_surfaces, original_dice

PACKAGE = "monai"


def distance_transform_edt(
    img: Any,
    sampling: float | list[float] | None = None,
    return_distances: bool = True,
    return_indices: bool = False,
    distances: Any = None,
    indices: Any = None,
    *,
    block_params: tuple[int, int, int] | None = None,
    float64_distances: bool = False,
) -> Any:
    """The distance of every pixel to the nearest zero of its channel, on the image's device.

    Like MONAI on the CPU, it returns SciPy's result for each channel: its bits for a spacing of 1,
    and for others float64 that agrees to float64's rounding. Where several zeros are equally near,
    SciPy may return another one of them.

    SciPy itself serves the rest, on the CPU: channels without a zero, sides that
    `pixelkernels.distance_transform` does not square (32767, of volumes 26755), and a `sampling`
    that it rejects with indices. It measures a channel without a zero to a pixel that does not
    exist. MONAI serves all of this on the GPU if cuCIM is installed.

    Args:
        img: [C, H, W] or [C, H, W, D], array or tensor; nonzero is inside.
        sampling: the spacing of the axes of a channel.
        distances, indices: if given, the result is not returned. MONAI 1.6 does not write into
            them either.
        block_params: ignored, as by MONAI on the CPU.
        float64_distances: return float64 on a GPU, instead of float32. The CPU returns float64.

    Returns: the distances, the indices of the nearest zeros (int32 [C, 2, H, W] or
    [C, 3, H, W, D]), or a list of both, of the image's type; None if `distances` and `indices`
    leave nothing to return.
    """
    if not (return_distances or return_indices):
        raise RuntimeError("return_distances, return_indices: expected one of them to be True")
    if img.ndim not in (3, 4):
        raise RuntimeError(f"img: expected [C, H, W] or [C, H, W, D], got {list(img.shape)}")
    zeros = img == 0 if isinstance(img, Tensor) else torch.from_numpy(np.asarray(img) == 0)
    found = None
    if zeros.flatten(1).any(1).all():
        found = _exact(zeros, 1.0 if sampling is None else sampling, return_indices)
    distance, nearest = _of_scipy(zeros, sampling) if found is None else found
    results = []
    if return_distances and distances is None:
        in_float64 = float64_distances or zeros.is_cpu
        results.append(distance.to(torch.float64 if in_float64 else torch.float32))
    if return_indices and indices is None:
        results.append(nearest)
    outputs = results if isinstance(img, Tensor) else [x.numpy() for x in results]
    return outputs if len(outputs) > 1 else next(iter(outputs), None)


def _exact(zeros: Tensor, sampling: Any, with_indices: bool) -> tuple[Tensor, Any] | None:
    """None for sides and spacings that `distance_transform` rejects."""
    axes = zeros.dim() - 1
    try:
        spacing = [float(x) for x in (sampling if np.ndim(sampling) else [sampling] * axes)]
        if spacing != [1.0] * axes:
            found = distance_transform(
                zeros, spatial_dims=axes, sampling=spacing, return_indices=True
            )
            return _root(_squares(found.indices, spacing)), found.indices
        if not with_indices:
            return _root(distance_transform(zeros, spatial_dims=axes, squared=True)), None
        found = distance_transform(zeros, spatial_dims=axes, squared=True, return_indices=True)
    except ValueError:
        return None
    return _root(found.distances), found.indices


def _squares(nearest: Tensor, spacing: Sequence[float]) -> Tensor:
    """The squared distances to the nearest zeros, as SciPy rounds them; float64."""
    size = nearest.shape[2:]
    total = nearest.new_zeros((len(nearest), *size), dtype=torch.float64)
    for axis, step in enumerate(spacing):
        own = torch.arange(size[axis], dtype=torch.int32, device=nearest.device)
        offset = nearest[:, axis] - own.view([-1 if i == axis else 1 for i in range(len(size))])
        total += (offset.double() * step).square_()
    return total


def _root(squares: Tensor) -> Tensor:
    squares = squares.double()
    # NumPy's root is correctly rounded on every CPU, torch's is not
    if squares.is_cpu:
        return squares.new_tensor(np.sqrt(squares.numpy()))
    return squares.sqrt()


def _of_scipy(zeros: Tensor, sampling: Any) -> tuple[Tensor, ...]:
    """The distances and the indices of the nearest zeros, channel by channel."""
    from scipy import ndimage

    channels, *size = zeros.shape
    distance = np.zeros((channels, *size))
    nearest = np.zeros((channels, len(size), *size), np.int32)
    for image, *out in zip(zeros.cpu().numpy(), distance, nearest, strict=True):
        ndimage.distance_transform_edt(~image, sampling, True, True, *out)
    return (
        zeros.new_tensor(distance, dtype=torch.float64),
        zeros.new_tensor(nearest, dtype=torch.int32),
    )


class HausdorffDTLoss(_Loss):
    """The Hausdorff loss, by `pixelkernels.hausdorff_loss`.

    Differences: a mask that is full has distances of 0, like one that is empty; SciPy, and so MONAI
    on the CPU, measures it to a pixel outside of the image. MONAI rounds the distances of a target
    to the target's dtype, those of an integer one down to integers. With `to_onehot_y` a label that
    is no class counts as background of all of them, where MONAI raises on the CPU. A target has no
    gradient.

    Args:
        alpha, include_background, batch: as in `hausdorff_loss`.
        to_onehot_y: the target has class labels [B, 1, H, W] or [B, 1, H, W, D].
        sigmoid, softmax, other_act: what to apply to the input first.
        reduction: "mean", "sum" or "none", over images and channels. "none" gives [B, C, 1, 1], or
            [1, C, 1, 1] with `batch`; one more 1 of volumes.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        include_background: bool = False,
        to_onehot_y: bool = False,
        sigmoid: bool = False,
        softmax: bool = False,
        other_act: Callable[..., Any] | None = None,
        reduction: Any = "mean",
        batch: bool = False,
    ) -> None:
        # MONAI's enumeration of reductions is one of strings
        name = getattr(reduction, "value", reduction)
        if name not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
        super().__init__(reduction=name)
        if other_act is not None and not callable(other_act):
            raise TypeError(
                f"other_act: expected None or a callable, got {type(other_act).__name__}"
            )
        if sigmoid and softmax:
            raise ValueError("sigmoid, softmax: expected at most one of them to be True")
        self.alpha = alpha
        self.include_background = include_background
        self.to_onehot_y = to_onehot_y
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.other_act = other_act
        self.batch = batch

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of `input` [B, C, H, W] or [B, C, H, W, D], and a target of its shape."""
        if input.dim() not in (4, 5):
            raise ValueError(
                f"input: expected [B, C, H, W] or [B, C, H, W, D], got {list(input.shape)}"
            )
        if target.requires_grad and torch.is_grad_enabled():
            raise ValueError("target: expected no gradient; use target.detach()")
        channels = input.shape[1]
        if self.sigmoid:
            input = torch.sigmoid(input)
        if self.softmax:
            input = input if _ignored("softmax=True", channels) else torch.softmax(input, 1)
        if self.other_act is not None:
            input = self.other_act(input)
        expected = tuple(input.shape)
        labels = self.to_onehot_y and not _ignored("to_onehot_y=True", channels)
        if labels:
            expected = (expected[0], 1, *expected[2:])
        if not self.include_background:
            _ignored("include_background=False", channels)
        if tuple(target.shape) != expected:
            raise AssertionError(f"target: expected {list(expected)}, got {list(target.shape)}")
        if labels:
            target = target[:, 0].long()
        elif not target.is_floating_point():
            target = target.to(input.dtype)
        losses = hausdorff_loss(
            input,
            target,
            alpha=float(self.alpha),
            include_background=bool(self.include_background),
            batch=bool(self.batch),
            reduction="none",
        )
        if self.reduction == "none":
            # MONAI keeps the dimensions that it averages over
            images = 1 if self.batch else len(losses)
            return losses.view(images, -1, *[1] * (input.dim() - 2))
        return losses.mean() if self.reduction == "mean" else losses.sum()


def _ignored(option: str, channels: int) -> bool:
    """Whether there is one channel alone, with a warning that the option has no effect then."""
    if channels == 1:
        warnings.warn(f"single channel prediction, `{option}` ignored.", stacklevel=3)
    return channels == 1


class LogHausdorffDTLoss(HausdorffDTLoss):
    """log(1 + `HausdorffDTLoss`)."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of `input` [B, C, H, W] or [B, C, H, W, D], and a target of its shape."""
        return torch.log(super().forward(input, target) + 1)


def compute_hausdorff_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    distance_metric: str = "euclidean",
    percentile: float | None = None,
    directed: bool = False,
    spacing: Any = None,
) -> Tensor:
    """The Hausdorff distance of every image and class: max_p min_q |p - q| over the edge pixels p
    of one mask and q of the other, the larger one of both directions.

    Values are MONAI's, and so are the warnings about empty masks. Many images and classes are
    transformed at once, on the device of the masks.

    Args:
        y_pred, y: arrays or tensors [B, C, H, W] or [B, C, H, W, D], any dtype; 1 is inside.
        include_background: also channel 0. The only channel always counts.
        distance_metric: "euclidean", or "chessboard" or "taxicab", which SciPy computes on the CPU
            without `spacing`, as in MONAI.
        percentile: take this percentile of the distances of each direction, from 0 to 100, instead
            of the largest. None and 0 stand for the largest, as in MONAI.
        directed: only from `y_pred` to `y`.
        spacing: of the pixels: a number, one for each axis, or one for each axis of each image.

    Returns: float32 [B, C], without the background [B, C - 1], on the device of `y_pred`. NaN if
    both masks are empty; if one is, +inf, or with a percentile NaN, as in MONAI.
    Raises: ValueError for other shapes, spacings, metrics and percentiles, also where MONAI finds
    no surface to measure and does not raise.
    Memory: 2 bytes per pixel of an image and class. Besides, of some masks at a time, which have 2
    million pixels on the CPU and 64 million on a GPU, or of one pair: 10 bytes per pixel, or if the
    spacings of the axes differ, 23, and 50 per edge pixel.
    """
    if percentile and not 0 <= percentile <= 100:
        raise ValueError(f"percentile: expected a number from 0 to 100, got {percentile}")

    def farthest(distances: tuple[Tensor, ...], _: int) -> Tensor:
        if percentile:
            return torch.stack([torch.quantile(x, percentile / 100) for x in distances]).max()
        return torch.stack([x.max() for x in distances]).max()

    masks = class_masks(y_pred, y, include_background)
    return of_surfaces(farthest, masks, spacing, distance_metric, symmetric=not directed)


def compute_average_surface_distance(
    y_pred: Any,
    y: Any,
    include_background: bool = False,
    symmetric: bool = False,
    distance_metric: str = "euclidean",
    spacing: Any = None,
) -> Tensor:
    """The mean distance of the edge pixels of `y_pred` to those of `y`, of every image and class.

    Values are MONAI's, and so are the warnings about empty masks.

    Args:
        y_pred, y, include_background, distance_metric, spacing: as in `compute_hausdorff_distance`.
        symmetric: the mean over the edge pixels of both masks.

    Returns: float32 [B, C], without the background [B, C - 1], on the device of `y_pred`. NaN if
    both masks are empty, +inf if one is.
    Raises and memory: as `compute_hausdorff_distance`.
    """
    masks = class_masks(y_pred, y, include_background)
    return of_surfaces(
        lambda distances, _: torch.cat(distances).mean(),
        masks,
        spacing,
        distance_metric,
        symmetric=symmetric,
    )


def compute_surface_dice(
    y_pred: Tensor,
    y: Tensor,
    class_thresholds: Any,
    include_background: bool = False,
    distance_metric: str = "euclidean",
    spacing: Any = None,
    use_subvoxels: bool = False,
) -> Tensor:
    """The normalized surface Dice of every image and class: the share of the edge pixels of both
    masks whose distance to those of the other is at most the threshold of the class.

    Values are MONAI's, and so are the warnings about empty masks: distances are rounded to float32
    like MONAI's, so those equal to a threshold count as there.

    Args:
        y_pred, y: tensors [B, C, H, W] or [B, C, H, W, D], any dtype; 1 is inside.
        class_thresholds: a finite number from 0 on for each class that counts.
        include_background, distance_metric, spacing: as in `compute_hausdorff_distance`.
        use_subvoxels: weight the corners of pixels that the boundary passes by its length or area
            there. MONAI's own function computes this, and MONAI must be installed.

    Returns: float32 [B, C], without the background [B, C - 1], on the device of `y_pred`. NaN if
    both masks are empty, 0 if one is.
    Raises: ValueError for arrays and other thresholds, and as `compute_hausdorff_distance`, whose
    memory it takes.
    Source: Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and
    neck anatomy for radiotherapy, arXiv:1809.04430.
    """
    if use_subvoxels:
        return original_dice()(
            y_pred, y, class_thresholds, include_background, distance_metric, spacing, True
        )
    for name, given in (("y_pred", y_pred), ("y", y)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(given).__name__}")
    masks = class_masks(y_pred, y, include_background)
    thresholds = [float(x) for x in class_thresholds]
    if len(thresholds) != masks.shape[2] or not all(0 <= x < np.inf for x in thresholds):
        raise ValueError(
            f"class_thresholds: expected {masks.shape[2]} finite numbers from 0 on, "
            f"got {class_thresholds}"
        )

    def near(distances: tuple[Tensor, ...], channel: int) -> Tensor:
        is_near = torch.cat(distances) <= thresholds[channel]
        return is_near.sum() / len(is_near)

    return of_surfaces(near, masks, spacing, distance_metric, symmetric=True)


REPLACES = {
    "transforms.utils:distance_transform_edt": distance_transform_edt,
    # in `monai.losses`, too: it imports them by name
    "losses.hausdorff_loss:HausdorffDTLoss": HausdorffDTLoss,
    "losses.hausdorff_loss:LogHausdorffDTLoss": LogHausdorffDTLoss,
    # in `monai.metrics` and its metric classes, too
    "metrics.hausdorff_distance:compute_hausdorff_distance": compute_hausdorff_distance,
    "metrics.surface_dice:compute_surface_dice": compute_surface_dice,
    "metrics.surface_distance:compute_average_surface_distance": compute_average_surface_distance,
}
