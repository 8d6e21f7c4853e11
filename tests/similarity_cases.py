"""Literal statements of the similarity family in NumPy, and inputs for it."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelkernels import testing

METRICS = ("dot", "cosine", "sqeuclidean")
TRANSFORMS = ("identity", "sigmoid", "exp")
REDUCES = ("sum", "mean", "max", "min", "topk", "softmax")
COMBINATIONS = list(itertools.product(METRICS, TRANSFORMS, REDUCES))
Array = NDArray[np.float64]


def options(metric, transform, reduce, scale=0.3, shift=-0.2, k=3):
    return {
        "metric": metric,
        "transform": transform,
        "reduce": reduce,
        "scale": scale,
        "shift": shift,
        "k": k if reduce == "topk" else None,
    }


def similarity(q: Array, r: Array, metric: str) -> float:
    if metric == "dot":
        return float(q @ r)
    if metric == "cosine":
        return float(q @ r / (max(np.linalg.norm(q), 1e-12) * max(np.linalg.norm(r), 1e-12)))
    return float(((q - r) ** 2).sum())


def transformed(x: Array, transform: str) -> Array:
    if transform == "sigmoid":
        return 1 / (1 + np.exp(-x))
    return np.exp(x) if transform == "exp" else x


def scores(
    query: Array,
    points: Array,
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    metric: str,
    transform: str,
    reduce: str,
    scale: float,
    shift: float,
    k: int | None,
) -> tuple[Array, int]:
    """The scores [L] and the label of one query [D], from points [K, D]."""
    smaller = metric == "sqeuclidean" and scale > 0
    s = np.array([similarity(query, r, metric) for r in points])
    v = transformed(scale * s + shift, transform)
    valid = (labels >= 0) & (labels < num_classes)
    if reduce == "softmax" and valid.any():
        e = np.where(valid, np.exp(v - v[valid].max()), 0)
        v = e / e.sum()
    found = np.full(num_classes, np.inf if smaller else -np.inf)
    for c in set(labels[valid].tolist()):
        own = v[labels == c]
        if reduce == "topk":
            best = np.sort(own)[:k] if smaller else np.sort(own)[::-1][:k]
            found[c] = best.mean()
        else:
            by = {"sum": np.sum, "softmax": np.sum, "mean": np.mean, "max": np.max, "min": np.min}
            found[c] = by[reduce](own)
    if not valid.any():
        return found, -1
    return found, int(found.argmin() if smaller else found.argmax())


def inputs(
    dtype=torch.float32,
    device="cpu",
    layout="contiguous",
    shape=(2, 19, 9, 11),
    points=(5, 14),
    classes=4,
    seed=0,
):
    """query, reference and labels: the last class absent, every fifth point ignored."""
    batch, channels = shape[:2]
    query = 0.4 * testing.features(*shape, seed=seed)
    reference = 0.4 * testing.features(batch, channels, *points, seed=seed + 1)
    labels = testing.random_labels(batch, *points, high=classes - 1, seed=seed + 2)
    labels.flatten()[::5] = -1
    query, reference = (testing.LAYOUTS[layout](x.to(device, dtype)) for x in (query, reference))
    return query, reference, labels.to(device), classes


@st.composite
def drawn(draw: st.DrawFn):
    """Small problems of every kind: (query, reference, labels, L) in float64, and options."""
    batch, channels = draw(st.integers(0, 2)), draw(st.integers(0, 20))
    size = (draw(st.integers(0, 5)), draw(st.integers(0, 40)))
    points, classes = draw(st.integers(0, 60)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    combination = draw(st.sampled_from(COMBINATIONS))
    size_of_values = draw(st.sampled_from((0.0, 0.05, 0.5, 2.0)))
    if combination[1] == "exp":  # of a large distance it is no float32
        size_of_values = min(size_of_values, 0.5)
    q = size_of_values * torch.randn(batch, channels, *size, generator=generator).double()
    r = size_of_values * torch.randn(batch, channels, points, generator=generator).double()
    labels = torch.randint(-2, classes + 1, (batch, points), generator=generator)
    chosen = options(
        *combination,
        scale=draw(st.sampled_from((1.0, 0.1, -0.3))),
        shift=draw(st.sampled_from((0.0, 0.5))),
        k=draw(st.integers(1, 70)),
    )
    return (q, r, labels, classes), chosen
