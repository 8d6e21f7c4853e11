"""Shared by the similarity kernels: tiles of similarities, sort keys, the best label."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._core.triton import ceil_div, load_tile, next_power_of_2, pixel_offsets
from ..ops import METRICS, REDUCES, TRANSFORMS

# The numbers of ops.METRICS, ops.TRANSFORMS and ops.REDUCES.
DOT: tl.constexpr = tl.constexpr(METRICS.index("dot"))
COSINE: tl.constexpr = tl.constexpr(METRICS.index("cosine"))
SQEUCLIDEAN: tl.constexpr = tl.constexpr(METRICS.index("sqeuclidean"))
IDENTITY: tl.constexpr = tl.constexpr(TRANSFORMS.index("identity"))
SIGMOID: tl.constexpr = tl.constexpr(TRANSFORMS.index("sigmoid"))
EXP: tl.constexpr = tl.constexpr(TRANSFORMS.index("exp"))
SUM: tl.constexpr = tl.constexpr(REDUCES.index("sum"))
MEAN: tl.constexpr = tl.constexpr(REDUCES.index("mean"))
MAX: tl.constexpr = tl.constexpr(REDUCES.index("max"))
MIN: tl.constexpr = tl.constexpr(REDUCES.index("min"))
TOPK: tl.constexpr = tl.constexpr(REDUCES.index("topk"))
SOFTMAX: tl.constexpr = tl.constexpr(REDUCES.index("softmax"))

# below the key of every number, including -inf
NO_KEY: tl.constexpr = tl.constexpr(-(2**31))
NOWHERE: tl.constexpr = tl.constexpr(2**31 - 1)
# just below the inverse of the smallest norm, 1e-12: from here on the norm was clamped
MOST_INVERSE: tl.constexpr = tl.constexpr(0.999999e12)

# packed rows are padded with zeros to a multiple of this
ROUND: tl.constexpr = tl.constexpr(16)
# programs of large tiles that fill a large GPU
PROGRAMS = 512


@triton.jit
def padded(channels):
    """The length of packed rows, whose loads are vectorised for any number of channels."""
    return tl.cdiv(channels, ROUND) * ROUND


@triton.jit
def load_points(points, j, known, first_channel, channels, BLOCK_D: tl.constexpr):
    """Rows j of the packed points: [BLOCK_K, BLOCK_D]; 0 if not `known`."""
    c = first_channel + tl.arange(0, BLOCK_D)
    where = points + j.to(tl.int64)[:, None] * padded(channels) + c[None, :]
    return tl.load(where, mask=known[:, None] & (c < padded(channels))[None, :], other=0.0)


@triton.jit
def products(
    query, points, channels, TRANSPOSED: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """<q_i, r_j> [BLOCK_Q, BLOCK_K], or with the same bits TRANSPOSED [BLOCK_K, BLOCK_Q].

    query: the features, the offsets of the pixels of the tile, whether these are inside, the stride
    of the channels, and the tile itself if it holds all channels (WHOLE); points likewise.
    """
    features, offsets, inside, stride_c, whole_q = query
    rows, j, known, whole_r = points
    if TRANSPOSED:
        product = tl.zeros([BLOCK_K, BLOCK_Q], tl.float32)
    else:
        product = tl.zeros([BLOCK_Q, BLOCK_K], tl.float32)
    if WHOLE:
        if TRANSPOSED:
            product = tl.dot(whole_r, tl.trans(whole_q), product, input_precision=PRECISION)
        else:
            product = tl.dot(whole_q, tl.trans(whole_r), product, input_precision=PRECISION)
    else:
        for c0 in range(0, channels, BLOCK_D):
            q = load_tile(features, offsets, inside, c0, channels, stride_c, BLOCK_D)
            q = q.to(rows.dtype.element_ty)
            r = load_points(rows, j, known, c0, channels, BLOCK_D)
            if TRANSPOSED:
                product = tl.dot(r, tl.trans(q), product, input_precision=PRECISION)
            else:
                product = tl.dot(q, tl.trans(r), product, input_precision=PRECISION)
    return product


@triton.jit
def similarity(product, query_norm, point_norm, METRIC: tl.constexpr):
    """s from <q, r> and the `norm` of both."""
    if METRIC == COSINE:
        return product * query_norm * point_norm
    if METRIC == SQEUCLIDEAN:
        distance = query_norm + point_norm - 2 * product
        # keep NaN
        return tl.where(distance < 0, 0.0, distance)
    return product


@triton.jit
def valid_points(
    query, query_norm, points, point_norms, channels, j0, end,
    METRIC: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The points from j0 on, whether they are below `end`, and their similarities."""
    j = j0 + tl.arange(0, BLOCK_K)
    known = j < end
    r = 0.0
    if WHOLE:
        r = load_points(points, j, known, 0, channels, BLOCK_D)
    s = products(
        query, (points, j, known, r), channels, False, WHOLE, PRECISION, BLOCK_Q, BLOCK_K, BLOCK_D
    )
    if METRIC != DOT:
        s = similarity(
            s, query_norm[:, None], tl.load(point_norms + j, mask=known, other=0.0)[None, :], METRIC
        )
    return j, known, s


@triton.jit
def query_tile(
    query, query_norms, image, start, pixels, width, channels,
    stride_b, stride_c, stride_h, stride_w, DTYPE: tl.constexpr, METRIC: tl.constexpr,
    WHOLE: tl.constexpr, FLAT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A tile of query pixels for `products`, their norms and flat indices."""
    query += image * stride_b
    pixel = start + tl.arange(0, BLOCK_Q)
    inside = pixel < pixels
    offsets = pixel_offsets(start, width, stride_h, stride_w, BLOCK_Q, FLAT)
    q = 0.0
    if WHOLE:
        q = load_tile(query, offsets, inside, 0, channels, stride_c, BLOCK_D).to(DTYPE)
    query_norm = 0.0
    if METRIC != DOT:
        query_norm = tl.load(query_norms + image * pixels + pixel, mask=inside, other=0.0)
    return (query, offsets, inside, stride_c, q), query_norm, pixel


@triton.jit
def row_sums(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum of each row of x [ROWS, COLUMNS], pairwise.

    tl.sum first adds what a thread has loaded, which depends on the strides of the features. The
    bits of this sum do not; nor do those of x, if it was accumulated by tl.fma.
    """
    if COLUMNS == 1:
        return tl.reshape(x, [ROWS])
    else:
        even, odd = tl.split(tl.reshape(x, [ROWS, COLUMNS // 2, 2]))
        return row_sums(even + odd, ROWS, COLUMNS // 2)


@triton.jit
def norm(square, INVERSE: tl.constexpr):
    """1 / max(|x|, 1e-12) for the cosine, |x|^2 for squared distances."""
    if INVERSE:
        root = tl.sqrt_rn(square)
        return tl.div_rn(1.0, tl.where(root < 1e-12, 1e-12, root))
    return square


@triton.jit
def transformed(affine, TRANSFORM: tl.constexpr):
    if TRANSFORM == SIGMOID:
        return tl.sigmoid(affine)
    if TRANSFORM == EXP:
        return tl.exp(affine)
    return affine


@triton.jit
def softplus(z):
    """log(1 + e^z) and its derivative, the sigmoid; 0 and 0 for -inf.

    log(1 + e) = 2 artanh(e / (2 + e)) is accurate for small e. The polynomial approximates artanh
    within 5e-9.
    """
    e = tl.exp(-tl.abs(z))
    inverse = 1.0 / ((1 + e) * (2 + e))
    t = e * (1 + e) * inverse
    square = t * t
    series = 0.281577796 * square + 0.279651582
    series = series * square + 0.400245965
    series = series * square + 0.666663229
    series = series * square + 2.0
    sigmoid = tl.where(z < 0, e, 1.0) * (2 + e) * inverse
    return tl.maximum(z, 0.0) + t * series, sigmoid


@triton.jit
def smaller_is_better(scale, METRIC: tl.constexpr):
    return (scale > 0) & (METRIC == SQEUCLIDEAN)


@triton.jit
def preference(scale, METRIC: tl.constexpr, REDUCE: tl.constexpr):
    """1 if max, min or topk selects the largest similarities, -1 if the smallest."""
    if REDUCE == TOPK and METRIC == SQEUCLIDEAN:
        return tl.where(scale >= 0, -1.0, -1.0)
    toward = tl.where(scale >= 0, 1.0, -1.0)
    return -toward if REDUCE == MIN else toward


@triton.jit
def key_of(s):
    """An int32 in the order of the floats: -0 equals 0, NaN is above all, as in torch."""
    bits = (s + 0.0).to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(s == s, key, NOWHERE)


@triton.jit
def of_key(key):
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def better_label(best, label, score, present, smaller, c):
    """The best rank and its class so far, after class c with `score`; NaN loses to any number."""
    rank = tl.where(smaller, -score, score)
    take = present & ((label < 0) | (rank > best) | ((best != best) & (rank == rank)))
    return tl.where(take, rank, best), tl.where(take, c, label)


def tile(query: Tensor, rows: Tensor, tall: bool = True) -> dict[str, Any]:
    """Tile shape, warps and stages of a kernel that multiplies the query with rows [B, P, D].

    WHOLE tiles hold all channels, so the query tile is loaded once for all points. `tall` tiles
    halve the reads of the points; they need enough query pixels to fill a GPU, and whole tiles,
    because loading channels in steps takes registers. Half-precision features are multiplied
    exactly, whatever the PRECISION.
    """
    batch, channels, height, width = query.shape
    half = rows.dtype.itemsize == 2
    exact = not half and torch.get_float32_matmul_precision() == "highest"
    widest = 128 if half else 16 if exact else 32
    whole = channels <= widest
    tall = tall and half and whole and batch * ceil_div(height * width, 128) >= PROGRAMS // 2
    return {
        "BLOCK_Q": 128 if tall else 64,
        "BLOCK_K": min(max(next_power_of_2(rows.shape[1]), 16), 32 if exact else 64),
        "BLOCK_D": max(next_power_of_2(channels), 16) if whole else min(widest, 64),
        "WHOLE": whole,
        "PRECISION": "ieee" if exact else "tf32",
        "num_warps": 8 if tall else 4,
        "num_stages": 2,
    }


def channel_block(shape: dict[str, Any], wide: bool) -> int:
    """The channels of a tile of the gradient; as many again if `wide`."""
    return int(shape["BLOCK_D"]) if shape["WHOLE"] else 128 if wide else 64


def chained_warps(shape: dict[str, Any]) -> int:
    """Warps of a kernel that multiplies a tile of products [BLOCK_Q, BLOCK_K] by the points again.

    Triton lays the warps of a whole tile out along its rows. On tensor cores, eight warps need 128
    rows: on 64, they would compute every product twice.
    """
    tensor_cores = shape["PRECISION"] != "ieee"
    return 4 if shape["WHOLE"] and tensor_cores and shape["BLOCK_Q"] == 64 else 8
