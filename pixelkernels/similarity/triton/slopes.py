"""What every entry of the matrix of similarities passes on, for the gradients' kernels."""

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
    saved, s, i, j, here, a, b, pixels, num_classes, k,
    METRIC: tl.constexpr, TRANSFORM: tl.constexpr, REDUCE: tl.constexpr,
    COLLAPSED: tl.constexpr, HAS_VALUES: tl.constexpr,
):  # fmt: skip
    """The derivatives by scale s_ij + shift and, for softmax, by values_j.

    i and j, pixels and points, are laid out as s is, one of them in rows, the other in columns.
    `here`: that both exist, and that the point is of a class.
    """
    grad, edge, place, means, values, classes, offsets = saved
    known = j < tl.load(offsets + num_classes)
    if COLLAPSED:
        known = j < num_classes
    c = tl.load(classes + j, mask=known, other=0)
    count = tl.load(offsets + c + 1, mask=known, other=0) - tl.load(
        offsets + c, mask=known, other=0
    )
    where = c.to(tl.int64) * pixels + i
    g = tl.load(grad + where, mask=here, other=0.0)
    by_value = 0.0
    if (REDUCE == MAX) | (REDUCE == MIN):
        here &= tl.load(place + where, mask=here, other=-1) == j
    elif REDUCE == TOPK:
        toward = preference(a, METRIC, REDUCE)
        last = tl.load(place + where, mask=here, other=-1)
        least = key_of(tl.load(edge + where, mask=here, other=0.0) * toward)
        key = key_of(s * toward)
        # the last one counts even if its bits are not those of the forward
        here &= (key > least) | (j == last) | ((key == least) & (j < last))
        g /= tl.maximum(tl.minimum(count, k), 1).to(tl.float32)
    elif REDUCE == MEAN and not COLLAPSED:
        g /= tl.maximum(count, 1).to(tl.float32)
    elif REDUCE == SUM and COLLAPSED:
        g *= count.to(tl.float32)
    if COLLAPSED:
        here &= count > 0
    v = transformed(a * s + b, TRANSFORM)
    slope = g
    if REDUCE == SOFTMAX:
        seen = tl.load(means + i, mask=i < pixels, other=0.0)
        probability = tl.exp(v - tl.load(edge + i, mask=i < pixels, other=0.0))
        by_value = tl.where(here, probability * g, 0.0)
        if HAS_VALUES:
            g *= tl.load(values + j, mask=known, other=0.0)
        slope = probability * (g - seen)
    if TRANSFORM == SIGMOID:
        slope *= v * (1 - v)
    if TRANSFORM == EXP:
        slope *= v
    return tl.where(here, slope, 0.0), by_value


@triton.jit
def saved_of(
    image, grad, edge, place, means, values, classes, offsets, pixels, num_points, num_classes,
    REDUCE: tl.constexpr,
):  # fmt: skip
    """What `slopes` reads, of one image. `offsets` are those of the image already."""
    return (
        grad + image * num_classes * pixels,
        edge + image * (1 if REDUCE == SOFTMAX else num_classes) * pixels,
        place + image * num_classes * pixels,
        means + image * pixels,
        values + image * num_points,
        classes + image * num_points,
        offsets,
    )


@triton.jit
def derivative(acc, x, along, norm, METRIC: tl.constexpr):
    """The gradient in x, from the sum of slope times the other vectors and that of the slopes.

    For the cosine the others are of unit length, and the slopes are multiplied with s.
    """
    if METRIC == COSINE:
        unit = tl.where(norm < MOST_INVERSE, x * norm, 0.0)
        return (acc - unit * along) * norm
    if METRIC == SQEUCLIDEAN:
        return 2 * (x * along - acc)
    return acc


@triton.jit
def multiplied(slope, rows, acc, PRECISION: tl.constexpr):
    """acc + slope @ rows. Half-precision rows: the slopes rounded as much, in bfloat16's range."""
    if rows.dtype == tl.bfloat16:
        return tl.dot(slope.to(tl.bfloat16), rows, acc)
    return tl.dot(slope, rows.to(tl.float32), acc, input_precision=PRECISION)
