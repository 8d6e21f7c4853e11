"""The gradient of the scores in each entry of the matrix of similarities."""

from __future__ import annotations

from ._common import (
    COSINE,
    EXP,
    MAX,
    MEAN,
    MIN,
    MOST_INVERSE,
    SIGMOID,
    SOFTMAX,
    SQEUCLIDEAN,
    SUM,
    TOPK,
    key_of,
    preference,
    tl,
    transformed,
    triton,
)


@triton.jit
def slopes(
    saved, s, i, j, used, a, b, pixels, num_classes, k,
    METRIC: tl.constexpr, TRANSFORM: tl.constexpr, REDUCE: tl.constexpr,
    COLLAPSED: tl.constexpr, HAS_VALUES: tl.constexpr,
):  # fmt: skip
    """The derivatives in scale s_ij + shift and, for softmax, in values_j.

    i and j, pixels and points, broadcast to the shape of s, one as a column, the other as a row.
    `used`: both exist, and the point belongs to a class.
    """
    grad, edge, index, means, values, classes, offsets = saved
    known = j < tl.load(offsets + num_classes)
    if COLLAPSED:
        known = j < num_classes
    c = tl.load(classes + j, mask=known, other=0)
    count = tl.load(offsets + c + 1, mask=known, other=0) - tl.load(
        offsets + c, mask=known, other=0
    )
    where = c.to(tl.int64) * pixels + i
    g = tl.load(grad + where, mask=used, other=0.0)
    by_value = 0.0
    if (REDUCE == MAX) | (REDUCE == MIN):
        used &= tl.load(index + where, mask=used, other=-1) == j
    elif REDUCE == TOPK:
        direction = preference(a, METRIC, REDUCE)
        last = tl.load(index + where, mask=used, other=-1)
        least = key_of(tl.load(edge + where, mask=used, other=0.0) * direction)
        key = key_of(s * direction)
        # include the last point taken even if its recomputed bits differ
        used &= (key > least) | (j == last) | ((key == least) & (j < last))
        g /= tl.maximum(tl.minimum(count, k), 1).to(tl.float32)
    elif REDUCE == MEAN and not COLLAPSED:
        g /= tl.maximum(count, 1).to(tl.float32)
    elif REDUCE == SUM and COLLAPSED:
        g *= count.to(tl.float32)
    if COLLAPSED:
        used &= count > 0
    v = transformed(a * s + b, TRANSFORM)
    slope = g
    if REDUCE == SOFTMAX:
        mean = tl.load(means + i, mask=i < pixels, other=0.0)
        probability = tl.exp(v - tl.load(edge + i, mask=i < pixels, other=0.0))
        by_value = tl.where(used, probability * g, 0.0)
        if HAS_VALUES:
            g *= tl.load(values + j, mask=known, other=0.0)
        slope = probability * (g - mean)
    if TRANSFORM == SIGMOID:
        slope *= v * (1 - v)
    if TRANSFORM == EXP:
        slope *= v
    return tl.where(used, slope, 0.0), by_value


@triton.jit
def saved_of(
    image, grad, edge, index, means, values, classes, offsets, pixels, num_points, num_classes,
    REDUCE: tl.constexpr,
):  # fmt: skip
    """The arguments of `slopes` for one image. `offsets` already are those of the image."""
    return (
        grad + image * num_classes * pixels,
        edge + image * (1 if REDUCE == SOFTMAX else num_classes) * pixels,
        index + image * num_classes * pixels,
        means + image * pixels,
        values + image * num_points,
        classes + image * num_points,
        offsets,
    )


@triton.jit
def derivative(acc, x, along, norm, METRIC: tl.constexpr):
    """The gradient in x from acc, the sum of slope * other vector, and along, the sum of slope.

    For the cosine, the other vectors have unit length and along is the sum of slope * s.
    """
    if METRIC == COSINE:
        unit = tl.where(norm < MOST_INVERSE, x * norm, 0.0)
        return (acc - unit * along) * norm
    if METRIC == SQEUCLIDEAN:
        return 2 * (x * along - acc)
    return acc


@triton.jit
def multiplied(slope, rows, acc, PRECISION: tl.constexpr):
    """acc + slope @ rows. For bfloat16 rows the slopes are rounded to bfloat16."""
    if rows.dtype == tl.bfloat16:
        return tl.dot(slope.to(tl.bfloat16), rows, acc)
    return tl.dot(slope, rows.to(tl.float32), acc, input_precision=PRECISION)
