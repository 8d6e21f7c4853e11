"""Scores of query pixels against classes of labelled reference points, and label transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._core import validation as check
from .._core.dispatch import choose
from .._core.distributed import gathered
from .._core.modules import OptionsModule
from .._core.named_tuples import serializable
from .._core.operators import to_image, to_kernel_dtype, to_scalar
from . import ops
from . import reference as eager

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def matching_scores(
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    metric: ops.Metric = "dot",
    transform: ops.Transform = "identity",
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    reduce: ops.Reduce = "sum",
    k: int | None = None,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """How well each query pixel matches each class of labelled reference points.

    score_c(i) = reduce_{j: l_j = c} transform(scale * s(q_i, r_j) + shift). Equivalent eager code,
    for one image and class, with metric "dot", transform "sigmoid" and reduce "mean":

        s = reference[b].flatten(1)[:, labels[b].flatten() == c].T @ query[b].flatten(1)
        score = torch.sigmoid(scale * s + shift).mean(0)

    Args:
        query: [B, D, H, W] or [B, D, N].
        reference: [B, D, K] or [B, D, H', W'].
        labels: [B, K] or [B, H', W'], integer or bool; a point outside [0, num_classes) is ignored.
        num_classes: L >= 1.
        metric: s is "dot", <q, r>; "cosine", with each norm at least 1e-12; or "sqeuclidean",
            |q - r|^2.
        transform: "identity", "sigmoid" or "exp".
        scale, shift: numbers, or 0-d tensors, which get a gradient.
        reduce: over the points of a class: "sum", "mean", "max", "min", "topk" (the mean of the
            min(k, count) best), or "softmax" (over all valid points, then summed per class).
        k: >= 1, for "topk" only.
        group: match with the reference points of all ranks of this process group. Each rank holds
            a part of the reference of the same B images, with equal K (padded with label -1), and
            its own query of any size. The gradient is that of the sum of the ranks' losses.

    Returns: [B, L, *spatial shape of query]. A class without points has the worst score: +inf where
    smaller is better, which is for "sqeuclidean" with scale > 0, else -inf. Differentiable in
    query, reference, scale and shift.

    Without a transform, sum and mean reduce exactly to the product with one prototype per class
    (and, for "sqeuclidean", the second moments). A pixel with an infinite feature may then get an
    infinite score where the sum over the points would be NaN. A norm is the root of a sum of
    squares in float32 (float64 for float64), so "cosine" needs features below 1.8e19.
    Memory: forward, the result and a packed copy of the reference; backward, the gradients, three
    such copies, and the workspace of a block of queries, 32 MiB on cpu. For the backward, max and
    min keep 4 bytes per score, topk 8. With `group`, the reference of all ranks.
    Source: Najafi et al., similarity learning for dense label transfer (affine, sum; the released
    code: cosine, sigmoid, mean); FEELVOS, VideoMatch (nearest point, top-k mean).

    Example:

        >>> query, reference = torch.randn(1, 64, 32, 32), torch.randn(1, 64, 200)
        >>> labels = torch.randint(3, (1, 200))
        >>> pk.matching_scores(query, reference, labels, 3, metric="cosine", reduce="max").shape
        torch.Size([1, 3, 32, 32])
    """
    options = (metric, transform, scale, shift, reduce, k)
    scores, _ = _match(
        "matching_scores", query, reference, labels, num_classes, options, group, backend
    )
    return scores


@serializable
class TransferredLabels(NamedTuple):
    """`labels` [B, *spatial] int64, and the `scores` [B, L, *spatial] that they maximise."""

    labels: Tensor
    scores: Tensor


def label_transfer(
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    metric: ops.Metric = "dot",
    transform: ops.Transform = "identity",
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    reduce: ops.Reduce = "sum",
    k: int | None = None,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> TransferredLabels:
    """Label every query pixel with the class that matches it best: argmax_c score_c(i).

    Arguments and scores are those of `matching_scores`. The best score is the smallest for
    "sqeuclidean" with scale > 0, else the largest; ties go to the smaller label. A class without
    points is never chosen, and one with a NaN score only if all others are NaN or absent.

    Returns: TransferredLabels(labels [B, *spatial] int64, scores [B, L, *spatial]). The labels are
    -1 in an image without a valid reference point. Differentiable in the scores.
    Source: Najafi et al., eq. 4: argmax_l sum_{j in N_l} of the affine similarity.

    Example:

        >>> query, reference = torch.randn(1, 64, 32, 32), torch.randn(1, 64, 200)
        >>> transferred = pk.label_transfer(query, reference, torch.randint(3, (1, 200)), 3)
        >>> transferred.labels.shape
        torch.Size([1, 32, 32])
    """
    options = (metric, transform, scale, shift, reduce, k)
    scores, best = _match(
        "label_transfer", query, reference, labels, num_classes, options, group, backend
    )
    return TransferredLabels(best, scores)


def _match(
    op: str,
    query: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    options: tuple[str, str, float | Tensor, float | Tensor, str, int | None],
    group: ProcessGroup | None,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """The scores [B, L, *spatial] and the best labels [B, *spatial]."""
    metric, transform, scale, shift, reduce, k = options
    check.group(group)
    query, reference = check.feature_pair("query", query, "reference", reference)
    check.labels("labels", labels, "reference", reference)
    num_classes = check.regions("num_classes", num_classes)
    scale, shift, k = _check_options(metric, transform, scale, shift, reduce, k)
    for name, value in (("scale", scale), ("shift", shift)):
        if isinstance(value, Tensor):
            check.on_device(name, value, "query", query)
    if group is not None:
        reference = gathered(reference.flatten(2), 2, group)
        labels = gathered(to_kernel_dtype(labels.flatten(1)), 1, group)
    chosen = choose(op, (query, reference, labels), backend)
    scale, shift = to_scalar(scale, query), to_scalar(shift, query)
    if chosen == "eager":
        scores = eager.matching_scores(
            query, reference, labels, num_classes, metric, transform, scale, shift, reduce, k or 0
        )
        classes = torch.arange(num_classes, device=labels.device)[:, None]
        present = (labels.flatten(1).long()[:, None] == classes).any(2)
        smaller = eager.smaller_is_better(metric, scale)
        return scores, eager.best_labels(scores, present, smaller)
    labels = to_kernel_dtype(labels.flatten(1))
    order, offsets = ops.points_by_class(chosen, labels, num_classes)
    codes = (
        ops.METRICS.index(metric),
        ops.TRANSFORMS.index(transform),
        ops.REDUCES.index(reduce),
        k or 0,
    )
    scores, best, *_ = ops.matching_scores(
        chosen, to_image(query), to_image(reference), order, offsets, None, scale, shift, *codes
    )
    if query.dim() == 3:
        scores, best = scores.squeeze(2), best.squeeze(1)
    return scores, best


def _check_options(
    metric: Any, transform: Any, scale: Any, shift: Any, reduce: Any, k: Any
) -> tuple[float | Tensor, float | Tensor, int | None]:
    """`scale`, `shift` and `k`."""
    check.option("metric", metric, ops.METRICS)
    check.option("transform", transform, ops.TRANSFORMS)
    check.option("reduce", reduce, ops.REDUCES)
    if (k is not None) != (reduce == "topk"):
        raise ValueError(f"k: expected a number with reduce='topk' and only there, got {k!r}")
    count = None if k is None else check.integer("k", k, minimum=1)
    return _factor("scale", scale), _factor("shift", shift), count


def _factor(name: str, value: Any) -> float | Tensor:
    if not isinstance(value, Tensor):
        return check.number(name, value)
    if check.tensor(name, value).dim() != 0 or value.dtype not in check.FLOAT_DTYPES:
        raise ValueError(
            f"{name}: expected a number or a 0-d floating-point tensor, got "
            f"{value.dtype}{list(value.shape)}"
        )
    return value


class LabelTransfer(OptionsModule):
    """`label_transfer` as a module: `transfer(query, reference, labels)`, or with L.

    Args:
        num_classes: L of every call; None: each call gives its own.
        metric, transform, scale, shift, reduce, k, group, backend: as in `label_transfer`.

    Example:

        >>> transfer = pk.LabelTransfer(3, metric="cosine", reduce="topk", k=5)
        >>> query, reference = torch.randn(1, 64, 32, 32), torch.randn(1, 64, 200)
        >>> transfer(query, reference, torch.randint(3, (1, 200))).labels.shape
        torch.Size([1, 32, 32])
    """

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        metric: ops.Metric = "dot",
        transform: ops.Transform = "identity",
        scale: float | Tensor = 1.0,
        shift: float | Tensor = 0.0,
        reduce: ops.Reduce = "sum",
        k: int | None = None,
        group: ProcessGroup | None = None,
        backend: str | None = None,
    ) -> None:
        if num_classes is not None:
            check.regions("num_classes", num_classes)
        _check_options(metric, transform, scale, shift, reduce, k)
        super().__init__(
            num_classes=num_classes,
            metric=metric,
            transform=transform,
            scale=scale,
            shift=shift,
            reduce=reduce,
            k=k,
            group=group,
            backend=backend,
        )

    def forward(
        self, query: Tensor, reference: Tensor, labels: Tensor, num_classes: int | None = None
    ) -> TransferredLabels:
        options = self.with_count("num_classes", num_classes)
        return label_transfer(query, reference, labels, **options)

    if TYPE_CHECKING:

        def __call__(
            self, query: Tensor, reference: Tensor, labels: Tensor, num_classes: int | None = None
        ) -> TransferredLabels: ...
