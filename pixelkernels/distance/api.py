"""The public functions of the distance family: argument checks and documentation.

Shared by all of them:

- Pixel centres lie at integers, distances are Euclidean and in pixels, points are (row, column).
- A mask is bool, or an integer dtype with nonzero meaning True.
- Distances between pixels are computed on integers: every backend gives the same bits.
- Nothing here has a gradient: clicks and masks are data. Results carry no graph.
- `backend` asks for one of "cpu", "cuda", "triton" and "eager"; None takes the first usable one. A
  backend that was asked for and cannot serve raises `BackendUnavailable`.
- All backends give the same bits on every run, and none waits for the device.
- Wrong dtypes and types raise TypeError, wrong shapes, devices and options ValueError, before
  anything is launched. Wrong values (a NaN coordinate, a label other than 1, 0 and -1) raise
  ValueError on CPU tensors; on a device, where looking would stall, such a click counts as absent.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Generator, Tensor

from .._core import validation as check
from . import algebra, ops

# whose squares, and those of whole images, are normal numbers in float32
LEAST_SPACING, MOST_SPACING = 2.0**-60, 2.0**40
LEAST_RADIUS, MOST_RADIUS = 2.0**-60, 2.0**60
LARGEST_FLOAT = 2.0**127


class NextClick(NamedTuple):
    """`points` [B, 2] int64, `labels` [B] int64 and `valid` [B] bool."""

    points: Tensor
    labels: Tensor
    valid: Tensor


def click_maps(
    points: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    *,
    encoding: str = "euclidean",
    radius: float | None = None,
    truncate: float | None = 255.0,
    backend: str | None = None,
) -> Tensor:
    """Distance maps of positive and negative clicks, the input of interactive segmentation.

    With d(p) = min_s |p - s| over the clicks s of one label:

        euclidean  min(d, truncate), and truncate where there is no click
        disk       1 where d <= radius, else 0; no click: 0
        tanh       tanh(2 d / radius); no click: 1
        gaussian   max_s exp(-|p - s|^2 / (2 radius^2)); no click: 0

    Equivalent eager code, for one image and label:

        d = torch.cdist(pixels, points[b][labels[b] == 1]).amin(1).view(height, width)

    Args:
        points: [B, N, 2], (row, column), integer or floating point; they need not lie inside.
        labels: [B, N], integer or bool: 1 positive, 0 negative, -1 padding, whatever its point is.
        size: (height, width) of the maps.
        encoding: "euclidean", "disk", "tanh" or "gaussian".
        radius: in pixels, > 0; for the last three, which need it.
        truncate: the largest value of "euclidean"; None: no limit, +inf where there is no click.

    Returns: float32 [B, 2, H, W], the positive map first, computed in float32 from points in
    float32. Memory: the result alone, with N floats for each few rows on the CPU.
    Source: Xu et al. (truncated distances); the tanh and disk maps of f-BRS and RITM.
    """
    bandwidth, limit = check_click_maps(points, labels, size, encoding, radius, truncate)
    return algebra.click_maps(points, labels, size, encoding, bandwidth, limit, backend)


def distance_transform(
    mask: Tensor,
    *,
    squared: bool = False,
    sampling: tuple[float, float] | None = None,
    backend: str | None = None,
) -> Tensor:
    """The exact Euclidean distance from each pixel to the nearest True pixel of its image.

    d(p) = min_s |p - s| over the True pixels s; 0 on them. This is
    `scipy.ndimage.distance_transform_edt(~mask)`, batched.

    Args:
        mask: [..., H, W], bool or integer; all leading dimensions are a batch.
        squared: return squared distances, int32; sides are at most 32767.
        sampling: (row, column) spacing of the pixels, from 2^-60 to 2^40; not with `squared`.

    Returns: the shape of `mask`, float32 with +inf in images without a True pixel, or int32 with
    2^31 - 1 there. Squared distances are exact. The others are their roots, rounded once; with
    `sampling`, or a side above 32767, squares are kept in float32.
    Memory: the result, and a bool copy of an integer or not contiguous mask. triton takes 3 more
    bytes per pixel (5 where H > 32767), cuda 4 where a row does not fit in shared memory (more than
    20000 pixels).
    Source: Felzenszwalb and Huttenlocher, distance transforms of sampled functions.
    """
    spacing = check_distance_transform(mask, squared, sampling)
    return algebra.distance_transform(mask, bool(squared), spacing, backend)


def next_click(
    prediction: Tensor,
    target: Tensor,
    *,
    not_clicked: Tensor | None = None,
    ignore_label: int = -1,
    random: bool = False,
    generator: Generator | None = None,
    backend: str | None = None,
) -> NextClick:
    """Where a user would click next: the centre of the largest error of a prediction.

    Errors are false negatives (object, not predicted) and false positives (predicted, not object).
    The depth of an error pixel is its distance to the nearest pixel that is not an error of its
    kind; what lies outside the image is none. The click goes to the deepest pixel, the first of
    them in row-major order, and is positive if the false negatives are strictly deeper. With
    `random` it goes to any pixel of that kind deeper than half of the deepest, each as likely.

    Args:
        prediction: [B, H, W], bool or integer mask.
        target: [B, H, W], bool or integer: 1 object, `ignore_label` neither an error nor not one,
            anything else background. An ignored pixel is no error.
        not_clicked: [B, H, W], bool or integer mask; pixels where it is False are not chosen.
        ignore_label: the label in `target` to leave out.
        random: for training, where the same prediction should not always give the same click.
        generator: on the device of `target`; the same state gives the same clicks.

    Returns: NextClick(points [B, 2] int64, labels [B] int64 1 or 0, valid [B] bool). With no error
    left the label is 0, the point (0, 0) and valid False.
    Memory: on cpu 3 MiB, or 3 bytes per pixel of one image where that is more; elsewhere about 30
    bytes per pixel. Depths are compared as exact squared integers, so sides are at most 32767.
    Source: the evaluation protocol of f-BRS, RITM and SAM 2; `random` is RITM's training.
    """
    check_next_click(prediction, target, not_clicked, ignore_label)
    check.flag("random", random)
    check.generator(generator, target)
    found = algebra.next_click(
        prediction, target, not_clicked, ignore_label, random, generator, backend
    )
    return NextClick(*found)


def simulate_clicks(
    target: Tensor,
    num_positive: int,
    num_negative: int,
    *,
    others: Tensor | None = None,
    strategy: str = "mixed",
    margin: float = 5,
    spacing: float = 10,
    band: float = 40,
    generator: Generator | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Random clicks as a user would place them on and around an object, for training.

    Positive clicks are drawn one after the other, uniformly from the pixels of the target that are
    at least `margin` from its edge and `spacing` from those before. Negative clicks are at least
    `margin` from the target and `spacing` from each other, by one of three strategies:

        background  uniform among pixels within `band` of the target
        objects     uniform among the pixels of `others`; background where it has none
        boundary    the first as for background, each further one the pixel within `band` that is
                    farthest from those before, which surrounds the target

    Args:
        target: [B, H, W], bool or integer mask of the object.
        num_positive, num_negative: clicks per image, P and N.
        others: [B, H, W], bool or integer mask of other objects, for "objects" and "mixed".
        strategy: one of the three, or "mixed": one of them at random for each image.
        margin, spacing, band: in pixels, >= 0. The border of the image is no edge.
        generator: on the device of `target`; the same state gives the same clicks.

    Returns: (points [B, P + N, 2], labels [B, P + N]), int64, positive clicks first. What finds no
    room is padding: (-1, -1) with label -1. An empty target has no positive clicks, and all of the
    image for negative ones.
    Memory: about 40 bytes per pixel. Source: Xu et al., Deep interactive object selection,
    section 3.2.
    """
    check.integers("target", target)
    if target.dim() != 3:
        raise ValueError(f"target: expected shape [B, H, W], got {list(target.shape)}")
    _short_sides("target", target)
    if others is not None:
        _same("others", others, "target", target)
    check.count("num_positive", num_positive, minimum=0)
    check.count("num_negative", num_negative, minimum=0)
    check.option("strategy", strategy, algebra.STRATEGIES)
    for name, value in (("margin", margin), ("spacing", spacing), ("band", band)):
        check.number(name, value, minimum=0)
    check.generator(generator, target)
    return algebra.simulate_clicks(
        target,
        num_positive,
        num_negative,
        others,
        strategy,
        margin,
        spacing,
        band,
        generator,
        backend,
    )


# ---- the checks that pixelkernels.numpy shares ----


def check_click_maps(
    points: Any, labels: Any, size: Any, encoding: Any, radius: Any, truncate: Any
) -> tuple[float, float]:
    """The radius (0 where it has no part) and the largest value."""
    check.tensor("points", points)
    if not points.is_floating_point() and points.dtype not in check.INTEGER_DTYPES:
        raise TypeError(f"points: expected a real dtype, got {points.dtype}")
    if points.dim() != 3 or points.shape[2] != 2:
        raise ValueError(f"points: expected shape [B, N, 2], got {list(points.shape)}")
    check.integers("labels", labels)
    if labels.shape != points.shape[:2]:
        raise ValueError(
            f"labels: expected shape {list(points.shape[:2])} for points of shape"
            f" {list(points.shape)}, got {list(labels.shape)}"
        )
    check.on_device("labels", labels, points, "points")
    height, width = check.pair("size", size)
    check.count("size", height, minimum=0)
    check.count("size", width, minimum=0)
    if check.option("encoding", encoding, ops.ENCODINGS) == "euclidean":
        if radius is not None:
            raise ValueError(f"radius: expected None with encoding='euclidean', got {radius!r}")
    elif radius is None:
        raise ValueError(f"radius: expected a positive number with encoding={encoding!r}, got None")
    else:
        radius = check.positive("radius", radius)
    limit = math.inf if truncate is None else check.number("truncate", truncate, minimum=0)
    limit = limit if limit < LARGEST_FLOAT else math.inf
    # its square has to be a float32; beyond these no distance of a pixel can tell it from them
    return min(max(radius or 0.0, LEAST_RADIUS), MOST_RADIUS), limit


def check_distance_transform(mask: Any, squared: bool, sampling: Any) -> tuple[float, float]:
    """The spacing of the pixels."""
    check.integers("mask", mask)
    check.flag("squared", squared)
    if mask.dim() < 2:
        raise ValueError(f"mask: expected shape [..., H, W], got {list(mask.shape)}")
    if sampling is None:
        spacing = (1.0, 1.0)
    else:
        row, column = check.pair("sampling", sampling)
        spacing = (check.positive("sampling", row), check.positive("sampling", column))
        if not LEAST_SPACING <= min(spacing) <= max(spacing) <= MOST_SPACING:
            raise ValueError(
                f"sampling: expected numbers from {LEAST_SPACING:.0e} to {MOST_SPACING:.0e}, got"
                f" {sampling!r}"
            )
        if squared:
            raise ValueError(f"sampling: expected None with squared=True, got {sampling!r}")
    if squared:
        _short_sides("mask", mask)
    return spacing


def check_next_click(prediction: Any, target: Any, not_clicked: Any, ignore_label: Any) -> None:
    check.integers("prediction", prediction)
    if prediction.dim() != 3:
        raise ValueError(f"prediction: expected shape [B, H, W], got {list(prediction.shape)}")
    _short_sides("prediction", prediction)
    _same("target", target, "prediction", prediction)
    if not_clicked is not None:
        _same("not_clicked", not_clicked, "prediction", prediction)
    check.integer("ignore_label", ignore_label, minimum=-(2**63))


def _same(name: str, value: Any, like_name: str, like: Tensor) -> None:
    check.integers(name, value)
    if value.shape != like.shape:
        raise ValueError(
            f"{name}: expected shape {list(like.shape)} as {like_name}, got {list(value.shape)}"
        )
    check.on_device(name, value, like, like_name)


def _short_sides(name: str, mask: Tensor) -> None:
    """Squared distances of longer sides would not fit an int32."""
    height, width = mask.shape[-2:]
    if max(height, width) > algebra.LONGEST_SIDE:
        raise ValueError(
            f"{name}: expected sides up to {algebra.LONGEST_SIDE}, got {height} x {width}"
        )
