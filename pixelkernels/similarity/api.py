"""The public functions of the similarity family: argument checks and documentation.

Shared by all of them:

- Features are float16, bfloat16, float32 or float64, all tensors of a call in one dtype, in any
  strides. Products are accumulated, and scores returned, in float32 (float64 for float64, on `cpu`
  and `eager`). triton multiplies float32 as `torch.get_float32_matmul_precision()` says: in full
  ("highest", the default) or as TF32.
- Labels are any integer dtype or bool, on the features' device. Labels outside [0, num_classes) are
  ignored: such a point enters nothing and has gradient 0, whatever its features hold.
- The matrix of all similarities, K x N for K reference points and N query pixels, is never stored,
  neither forward nor backward, except by eager.
- `backend` asks for one of "cpu", "triton" and "eager"; None takes the first usable one. A backend
  that was asked for and cannot serve raises `BackendUnavailable`.
- cpu and triton give the same bits on every run, do not wait for the device, and differentiate
  once. Of equal maxima the first point gets the gradient.
- Wrong dtypes and types raise TypeError, wrong shapes, devices and options ValueError, before
  anything is launched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Generator, Tensor

from .._core import validation as check
from . import algebra, ops

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class TransferredLabels(NamedTuple):
    """`labels` [B, *spatial] int64 and the `scores` [B, L, *spatial] they were chosen by."""

    labels: Tensor
    scores: Tensor


def matching_scores(
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    metric: str = "dot",
    transform: str = "identity",
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    reduce: str = "sum",
    k: int | None = None,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """How well each query pixel matches each class of labelled reference points.

    score_c(i) = reduce_{j: l_j = c} transform(scale * s(q_i, r_j) + shift). Equivalent eager code,
    for one image, class and the metric "dot":

        s = reference[b].flatten(1)[:, labels[b].flatten() == c].T @ query[b].flatten(1)
        score = torch.sigmoid(scale * s + shift).mean(0)

    Args:
        query: [B, D, H, W] or [B, D, N].
        reference: [B, D, K] or [B, D, H', W'].
        labels: [B, K] or [B, H', W'], integer or bool; outside [0, num_classes): ignored.
        num_classes: L >= 1.
        metric: s is "dot", <q, r>; "cosine", with each norm at least 1e-12; or "sqeuclidean",
            |q - r|^2.
        transform: "identity", "sigmoid" or "exp".
        scale, shift: numbers, or 0-d tensors, which get a gradient.
        reduce: over the points of a class: "sum", "mean", "max", "min", "topk" (the mean of the
            min(k, count) best) or "softmax" (over all valid points, then summed by class).
        k: for "topk", >= 1.
        group: each of its ranks has a part of the reference points of the same B images, K of them
            (where some are missing, with the label -1), and matches its own query, of any size,
            with those of all ranks. The gradient is that of the sum of the ranks' losses.

    Returns: [B, L, *query's spatial shape]. A class without points has the worst score: +inf where
    a smaller score is better, which is for "sqeuclidean" with scale > 0, else -inf. Differentiable
    in query, reference, scale and shift.

    Sums and means without a transform collapse exactly, to the product with one prototype per class
    (and, for "sqeuclidean", the second moments); a pixel that holds an infinity may so get an
    infinite score where the sum over the pairs would be NaN.
    Memory: forward, the result and a packed copy of the reference; backward, the gradients, three
    such copies, and what a round of queries takes, 32 MiB on the cpu. For the backward max and min
    keep 4 bytes per score, topk 8. With `group` the reference is that of all ranks, and held.
    Source: Najafi et al., similarity learning for dense label transfer (affine, sum; the released
    code: cosine, sigmoid, mean); FEELVOS, VideoMatch (nearest point, top-k mean).
    """
    options = (metric, transform, scale, shift, reduce, k)
    _check_matching(query, reference, labels, num_classes, *options, group)
    return algebra.matching(
        "matching_scores", query, reference, labels, num_classes, *options, group, backend
    )[0]


def label_transfer(
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    metric: str = "dot",
    transform: str = "identity",
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    reduce: str = "sum",
    k: int | None = None,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> TransferredLabels:
    """Label every query pixel with the class that matches it best: argmax_c score_c(i).

    The arguments and scores are those of `matching_scores`. The best class has the smallest score
    for "sqeuclidean" with scale > 0, else the largest; of equal ones the smallest label. A class
    without points is never chosen, and a NaN score only where there is no other.

    Returns: TransferredLabels(labels [B, *spatial] int64, scores [B, L, *spatial]); label -1 in an
    image without a valid reference point. Differentiable in the scores.
    Source: Najafi et al., eq. 4: argmax_l sum_{j in N_l} of the affine similarity.
    """
    options = (metric, transform, scale, shift, reduce, k)
    _check_matching(query, reference, labels, num_classes, *options, group)
    scores, best = algebra.matching(
        "label_transfer", query, reference, labels, num_classes, *options, group, backend
    )
    return TransferredLabels(best, scores)


def sample_reference(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    num_per_class: int,
    *,
    generator: Generator | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw reference points of every class: stochastic pooling.

    Uniform without replacement among the pixels of a class, in random order. Equivalent eager code,
    for one image and class:

        place = (labels[b] == c).flatten().nonzero()[:, 0]
        points = features[b].flatten(1)[:, place[torch.randperm(len(place))[:num_per_class]]]

    Args:
        features: [B, D, H, W].
        labels: [B, H, W], integer or bool; outside [0, num_classes): never drawn.
        num_classes: L >= 1.
        num_per_class: n >= 1.
        generator: on the device of `labels`; the same state gives the same points on one backend.

    Returns: (reference [B, D, L*n], labels [B, L*n] int64), class by class. Where a class has fewer
    than n pixels the last of its rows are zeros with label -1. Differentiable in features.
    Memory: 8 bytes per pixel on cpu, about 40 on triton; nothing waits for the device.
    Source: Najafi et al., K points per class of the reference frame.
    """
    check.features("features", features)
    check.labels("labels", labels, features)
    check.count("num_classes", num_classes)
    check.count("num_per_class", num_per_class)
    check.generator(generator, labels)
    return algebra.sample_reference(
        features, labels, num_classes, num_per_class, generator, backend
    )


def prior_mask(
    query: Tensor,
    support: Tensor,
    weights: Tensor,
    *,
    eps: float = 1e-7,
    minmax_eps: float = 1e-7,
    reduce: str = "max",
    normalize: str | None = "minmax",
    backend: str | None = None,
) -> Tensor:
    """The training-free prior of few-shot segmentation: how like the masked support a pixel is.

    With u_j = w_j s_j, prior(i) = max_j q_i.u_j / (|q_i| |u_j| + eps) over all support positions;
    one of weight 0 counts as 0. Then (prior - min)/(max - min + minmax_eps) per image and, for
    several shots, their mean. Equivalent eager code, for one image and shot:

        u = (support[b] * weights[b]).flatten(1)
        q = query[b].flatten(1)
        prior = (u.T @ q / (u.norm(dim=0)[:, None] * q.norm(dim=0) + eps)).amax(0)

    Args:
        query: [B, C, h, w].
        support: [B, C, h', w'], or [B, S, C, h', w'] for S >= 1 shots.
        weights: the mask of the support, [B, ...] or [B, S, ...], floating point >= 0. Of another
            size than h' x w' it is resized (bilinear, align_corners=True). A pixel of weight
            exactly 0 is never multiplied, NaN or not, and that weight's gradient is 0. Negative
            weights raise ValueError on CPU.
        reduce: "max", or "softmax": sum_j softmax_j(cos(q_i, s_j)) w_j with the features unweighted
            and each norm at least 1e-12; here pixels of weight 0 do enter the softmax.
        normalize: "minmax" or None: the values as they are.

    Returns: [B, h, w]. Differentiable in query, support and weights.
    Memory: packed copies of the support's masked pixels; the [h'w', hw] matrix does not exist.
    Source: PFENet's prior ("max"), SCCAN ("softmax"); the thesis' IPF prior.
    """
    check.features("query", query)
    check.tensor("support", support)
    if support.dim() == 4:
        support, weights = support[:, None], _with_shots(weights)
    expected = [query.shape[0], "S", query.shape[1], "h'", "w'"]
    _same_kind("support", support, query, "query")
    if support.dim() != 5 or list(support.shape[:3:2]) != list(query.shape[:2]):
        raise ValueError(
            f"support: expected shape {expected} (or without S) for a query of shape "
            f"{list(query.shape)}, got {list(support.shape)}"
        )
    check.floating("weights", weights)
    if weights.dim() != 4 or weights.shape[:2] != support.shape[:2]:
        raise ValueError(
            f"weights: expected shape {[*support.shape[:2], 'H', 'W']} (or [B, H, W] for a support "
            f"without shots), got {list(weights.shape)}"
        )
    check.on_device("weights", weights, query, "query")
    size, asked = list(weights.shape[2:]), list(support.shape[3:])
    if size != asked and 0 in (*size, *asked):
        raise ValueError(f"weights: expected a size that can be resized to {asked}, got {size}")
    if support.shape[1] == 0:
        raise ValueError("support: expected at least one shot, got 0")
    check.number("eps", eps, minimum=0)
    check.number("minmax_eps", minmax_eps, minimum=0)
    check.option("reduce", reduce, ("max", "softmax"))
    check.option("normalize", normalize, ("minmax", None))
    return algebra.prior_mask(
        query, support, weights, eps, minmax_eps, reduce, normalize == "minmax", backend
    )


def pair_similarity_loss(
    x: Tensor,
    y: Tensor,
    x_labels: Tensor,
    y_labels: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """The Siamese loss over all pairs of pixels of two images: do the two share a label?

    The mean over all valid pairs of the batch of the binary cross entropy between the batch norm of
    s_ij = <x_i, y_j> and [x_labels_i = y_labels_j]; with mu and var the mean and the variance of s,
    z_ij = weight (s_ij - mu) / sqrt(var + eps) + bias, loss = mean(softplus(z_ij) - [l_i = l_j]
    z_ij). Equivalent eager code, for one image whose pixels are all valid:

        s = x[0].flatten(1).T @ y[0].flatten(1)
        z = torch.nn.functional.batch_norm(s[None, None], None, None, weight, bias, True)[0, 0]
        same = x_labels[0].flatten()[:, None] == y_labels[0].flatten()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, same.float())

    Args:
        x: [B, D, H, W] or [B, D, N].
        y: [B, D, H', W'] or [B, D, M].
        x_labels, y_labels: of the spatial shape of x and y, integer or bool, any number of classes;
            negative: the pixel is in no pair and has gradient 0.
        weight, bias: scale and shift, of one element; None stands for 1 and 0.
        running_mean, running_var: of one element, updated in place in training, as batch norm does
            it (the variance unbiased); both or neither.
        training: whether the statistics of this batch normalise, or the running ones.
        momentum: the weight of this batch in the running statistics.
        eps: >= 0.
        group: each of its ranks has images of one batch; statistics and loss are those of the whole
            batch, the same on all. The gradient is that of the sum of the ranks' losses.

    Returns: 0-d; 0 where there is no valid pair. Differentiable in x, y, weight and bias, through
    the batch's statistics too.

    The matrix of pairs is never stored. Its statistics come from the first and second moments of x
    and y, in float64; loss and gradient from one visit to each pair, in the forward.
    Memory: the gradients, twice in the backward, and packed copies of the inputs: at most 4 times
    the float32 inputs, and 32 MiB.
    Source: Najafi et al., similarity learning for dense label transfer: the training objective
    before its sampling, with the batch norm of the similarities.
    """
    _check_features((("x", x), ("y", y)))
    check.per_pixel("x_labels", check.integers("x_labels", x_labels), x)
    check.per_pixel("y_labels", check.integers("y_labels", y_labels), y)
    check.flag("training", training)
    check.number("momentum", momentum, minimum=0)
    check.number("eps", eps, minimum=0)
    check.group(group)
    for name, value in (
        ("weight", weight),
        ("bias", bias),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if value is None:
            continue
        if check.tensor(name, value).dtype not in check.FLOAT_DTYPES or value.numel() != 1:
            raise ValueError(
                f"{name}: expected one floating-point number, got {value.dtype}{list(value.shape)}"
            )
        check.on_device(name, value, x, "x")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_var: expected running_mean and running_var, or neither")
    if not training and running_mean is None:
        raise ValueError("running_mean: expected running statistics with training=False, got None")
    return algebra.pair_similarity_loss(
        *(x, y, x_labels, y_labels, weight, bias, running_mean, running_var),
        *(training, momentum, eps, group, backend),
    )


def _check_features(pair: tuple[tuple[str, Any], tuple[str, Any]]) -> None:
    """Two features of any spatial shape, alike in dtype, device, images and channels."""
    for name, value in pair:
        check.floating(name, value)
        if value.dim() not in (3, 4):
            raise ValueError(
                f"{name}: expected shape [B, D, H, W] or [B, D, N], got {list(value.shape)}"
            )
    (like_name, like), (name, value) = pair
    _same_kind(name, value, like, like_name)
    if value.shape[:2] != like.shape[:2]:
        raise ValueError(
            f"{name}: expected {list(like.shape[:2])} images and channels as {like_name}, got "
            f"{list(value.shape[:2])}"
        )


def _check_matching(
    query: Any,
    reference: Any,
    labels: Any,
    num_classes: Any,
    metric: Any,
    transform: Any,
    scale: Any,
    shift: Any,
    reduce: Any,
    k: Any,
    group: Any,
) -> None:
    check.group(group)
    _check_features((("query", query), ("reference", reference)))
    check.per_pixel("labels", check.integers("labels", labels), reference)
    check.count("num_classes", num_classes)
    check.option("metric", metric, ops.METRICS)
    check.option("transform", transform, ops.TRANSFORMS)
    check.option("reduce", reduce, ops.REDUCES)
    for name, value in (("scale", scale), ("shift", shift)):
        if not isinstance(value, Tensor):
            check.number(name, value)
        elif check.tensor(name, value).dim() != 0 or value.dtype not in check.FLOAT_DTYPES:
            raise ValueError(
                f"{name}: expected a number or a 0-d floating-point tensor, got "
                f"{value.dtype}{list(value.shape)}"
            )
        else:
            check.on_device(name, value, query, "query")
    if (k is not None) != (reduce == "topk"):
        raise ValueError(f"k: expected a number with reduce='topk' and only there, got {k!r}")
    if k is not None:
        check.integer("k", k, minimum=1)


def _same_kind(name: str, value: Tensor, like: Tensor, like_name: str) -> None:
    if value.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype} as {like_name}, got {value.dtype}")
    check.on_device(name, value, like, like_name)


def _with_shots(weights: Any) -> Any:
    if isinstance(weights, torch.Tensor) and weights.dim() == 3:
        return weights[:, None]
    return weights
