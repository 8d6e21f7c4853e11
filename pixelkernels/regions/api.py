"""The public functions of the regions family: argument checks and documentation.

Shared by all of them:

- Features are float16, bfloat16, float32 or float64, [B, C, H, W], in any strides; the kernels
  accumulate, and return statistics and losses, in float32 (float64 for float64). float64 runs on
  `cpu` and `eager`.
- Labels are any integer dtype or bool, [B, H, W], on the features' device. Labels outside [0,
  num_regions) are ignored: such a pixel enters nothing and has gradient 0, whatever its features
  hold.
- A loss is the mean over the images that have something to compare; with no such image it is 0 with
  gradient 0.
- `backend` asks for one of "cpu", "cuda", "triton" and "eager"; None takes the first usable one. A
  backend that was asked for and cannot serve raises `BackendUnavailable`.
- cpu, cuda and triton give the same bits on every run. They hold no temporary larger than the
  features, and differentiate once. eager is as deterministic as torch's scatter_add on the device.
- Wrong dtypes and types raise TypeError, wrong shapes, devices and options ValueError, before
  anything is launched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .._core import validation as check
from . import algebra

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class RegionStats(NamedTuple):
    """`count` [B, R] int64, `mean` [B, R, C] and `variance` [B, R] of each region."""

    count: Tensor  # type: ignore[assignment]  # a tuple has a method of that name
    mean: Tensor
    variance: Tensor


def region_stats(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    group: ProcessGroup | None = None,
    backend: str | None = None,
) -> RegionStats:
    """Pixel count, centroid and variance of every region of every image.

    mean_r = 1/n_r sum_{i in r} f_i and variance_r = 1/n_r sum_{i in r} |f_i - mean_r|^2, the mean
    squared Euclidean distance to the centroid. Equivalent eager code, for one image and region:

        f = features[b][:, labels[b] == r]
        mean, variance = f.mean(1), (f - f.mean(1, keepdim=True)).square().sum(0).mean()

    Args:
        features: [B, C, H, W], floating point.
        labels: [B, H, W], integer or bool; outside [0, num_regions): ignored.
        num_regions: R >= 1.
        group: each of its ranks has a part of the same B images (some rows, a tile; H and W may
            differ, B and C not), and all get the statistics of the whole. The gradient is that of
            the sum of the ranks' losses.

    Returns:
        RegionStats(count [B, R] int64, mean [B, R, C], variance [B, R]); an absent region has 0, 0,
        0. Differentiable in mean and variance. The variance is taken about values of the region
        itself, so nearly constant regions far from 0 keep their digits.

    Memory: forward, block partials of at most a quarter of the float32 features; backward, the
    gradient alone.
    Source: the centroids and spreads of MEnet eqs. 2-3 and CAS eq. 1.
    """
    check.features("features", features)
    check.labels("labels", labels, features)
    check.count("num_regions", num_regions)
    check.group(group)
    stats = algebra.region_stats(features, labels, num_regions, False, backend)
    return RegionStats(*(stats if group is None else algebra.stats_of_all_ranks(*stats, group)))


def cas_loss(
    descriptors: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    alpha: float = 0.5,
    variant: str = "paper",
    divisor: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Class-agnostic segmentation loss: regions tight inside, far from each other.

    Per image alpha sum_r variance_r - (1 - alpha) sum_{i != j} |mean_i - mean_j|^2 over the present
    regions and their ordered pairs (each pair twice); the mean over the images with a region.
    Source: CAS eq. 1.

    Args:
        descriptors: [B, C, H, W]; the paper takes softmax outputs.
        labels: [B, H, W], integer or bool; any number of regions per image.
        num_regions: R >= 1.
        alpha: weight of the variance (uniformer) term; 1 - alpha weighs the distance
            (discriminator) term.
        variant: "paper", or "released": what the public two-region code computes on labels 0 and 1
            (num_regions 2). Every pixel enters both regions, with weights label + 3e-5 and 1 -
            label + 3e-5; the weights are squared in the variance, which only region 1 has; the pair
            counts once; every image counts.
        divisor: for "released", what the sum over images is divided by (that code has a constant
            40); None: B.

    Returns: a scalar. Memory: as `region_stats`.
    """
    check.features("descriptors", descriptors)
    check.labels("labels", labels, descriptors)
    check.count("num_regions", num_regions)
    check.number("alpha", alpha)
    if check.option("variant", variant, ("paper", "released")) == "paper":
        if divisor is not None:
            raise ValueError(f"divisor: expected None with variant='paper', got {divisor!r}")
        return algebra.cas_loss(descriptors, labels, num_regions, alpha, backend)
    if num_regions != 2:
        raise ValueError(f"num_regions: expected 2 with variant='released', got {num_regions}")
    if divisor is not None and check.number("divisor", divisor, minimum=0) == 0:
        raise ValueError("divisor: expected a positive number, got 0")
    return algebra.cas_loss_released(descriptors, labels, alpha, divisor, backend)


def metric_expression_loss(
    features: Tensor,
    mask: Tensor,
    *,
    form: str = "means",
    normalize: bool = False,
    mining: str | None = None,
    grad: str = "exact",
    backend: str | None = None,
) -> Tensor:
    """MEnet's metric loss: pixels near the mean of their own side of the mask, far from the other
    side's.

    form="means", eq. 3: per image mean_i(|f_i - own mean|^2 - |f_i - other mean|^2), which is
    exactly -|mean_1 - mean_0|^2. form="pairwise", eq. 2: the mean over k of |f_i - f_k|^2 stands
    for each distance (own side: i itself included), which adds (n_1 - n_0)(variance_1 -
    variance_0)/(n_1 + n_0). The mean over the images that have both sides.

    Args:
        features: [B, C, H, W].
        mask: [B, H, W], bool or integer: 1 salient, 0 background, other values belong to neither.
        normalize: divide each pixel's features by their Euclidean norm first (a zero vector stays),
            as the released code.
        mining: None, or "hard" (form "means"): the mean over the smaller side and as many pixels of
            the larger one with the largest term; ties take the larger flat index, a term of exactly
            0 ranks as -100, equal sides mine the background. The gradient goes through the class
            means too; the choice of pixels is constant.
        grad: "exact", or "released": the released layer. Its value is 4 - |mean_1 - mean_0|^2 over
            all pixels, every image counting and an empty side having mean 0; its hand-written
            gradient is (other mean - own mean)/(C H W) at the
            mined pixels and 0 elsewhere: no factor 2, nothing through means and normalisation, no
                1/B. It always mines.

    Returns: a scalar. Memory: as `region_stats`, and with mining a few values per pixel.
    """
    check.features("features", features)
    check.labels("mask", mask, features)
    check.option("form", form, ("means", "pairwise"))
    check.option("mining", mining, (None, "hard"))
    check.option("grad", grad, ("exact", "released"))
    if form == "pairwise" and (mining is not None or grad == "released"):
        raise ValueError("form: mining and grad='released' are defined for 'means', got 'pairwise'")
    check.flag("normalize", normalize)
    return algebra.metric_expression_loss(
        features, mask, form, bool(normalize), mining == "hard", grad == "released", backend
    )


def discriminative_loss(
    features: Tensor,
    labels: Tensor,
    num_regions: int,
    *,
    delta_var: float = 0.5,
    delta_dist: float = 1.5,
    weights: tuple[float, float, float] = (1.0, 1.0, 1e-3),
    norm: int = 2,
    reduction: str = "cluster",
    background: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """The discriminative loss of De Brabandere et al. (2017), eqs. 1-4, on integer labels.

    Per image, over its C present regions: pull = 1/C sum_c 1/n_c sum_{i in c} [|mean_c - f_i| -
    delta_var]_+^2, push = 1/(C(C-1)) sum_{a != b} [2 delta_dist - |mean_a - mean_b|]_+^2 (0 for one
    region), regulariser = 1/C sum_c |mean_c|; the loss is weights . (pull, push, regulariser), the
    mean over the images with a region.

    Args:
        features: [B, C, H, W].
        labels: [B, H, W], integer or bool; an image without some of the num_regions labels is no
            special case.
        norm: 1 or 2, for all three terms.
        reduction: of the pull term: "cluster" as above, or "pixel": over all labelled pixels of the
            image alike.
        background: a label that is left out of everything.

    Returns: a scalar. Memory: block partials of at most a quarter of the float32 features; [B, R,
    R] is not stored.
    """
    check.features("features", features)
    check.labels("labels", labels, features)
    check.count("num_regions", num_regions)
    check.number("delta_var", delta_var, minimum=0)
    check.number("delta_dist", delta_dist, minimum=0)
    if not isinstance(weights, (tuple, list)) or len(weights) != 3:
        raise ValueError(
            f"weights: expected three numbers (pull, push, regulariser), got {weights!r}"
        )
    pull, push, regulariser = (check.number("weights", weight) for weight in weights)
    check.option("norm", norm, (1, 2))
    check.option("reduction", reduction, ("cluster", "pixel"))
    if background is not None:
        check.integer("background", background, minimum=-(2**63))
    return algebra.discriminative_loss(
        features,
        labels,
        num_regions,
        delta_var,
        delta_dist,
        (pull, push, regulariser),
        norm,
        reduction,
        background,
        backend,
    )


def background_distance(
    features: Tensor,
    weights: Tensor,
    *,
    squared: bool = False,
    normalize: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """Saliency as the distance from the background: S_i = |f_i - sum_j w_j f_j / sum_j w_j|, MEnet
    eq. 5.

    Args:
        features: [B, C, H, W].
        weights: [B, H, W] floating point >= 0, such as the probability of background. A pixel of
            weight exactly 0 does not enter the mean, NaN or not, and that weight's gradient is 0.
            Negative weights raise ValueError on CPU and count as 0 on a device.
        squared: return |.|^2.
        normalize: None, or "minmax": (S - min)/(max - min + 1e-8) per image.

    Returns: [B, H, W], zeros where an image's weights sum to 0. Differentiable in features and
    weights.
    """
    check.features("features", features)
    check.weights("weights", weights, features)
    check.option("normalize", normalize, (None, "minmax"))
    check.flag("squared", squared)
    return algebra.background_distance(
        features, weights, bool(squared), normalize == "minmax", backend
    )


def masked_average_pool(
    features: Tensor,
    weights: Tensor,
    *,
    eps: float = 1e-5,
    upsample: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The weighted mean of the features, sum_i w_i f_i / (sum_i w_i + eps), per image: a class
    prototype.

    Args:
        features: [B, C, H, W].
        weights: [B, H, W] floating point >= 0, as for `background_distance`; with `upsample`, [B,
            H', W'].
        upsample: None, or "bilinear": as if the features were resized to the weights' size
            (bilinear, align_corners=False) and pooled there. The weights are resized with the
            adjoint instead, so nothing of that size is made.

    Returns: [B, C]. Differentiable in features and weights. Source: PANet's masked average pooling.
    """
    check.features("features", features)
    check.number("eps", eps, minimum=0)
    check.option("upsample", upsample, (None, "bilinear"))
    check.weights("weights", weights, features, same_size=upsample is None)
    return algebra.masked_average_pool(features, weights, eps, upsample is not None, backend)


def compact_labels(
    labels: Tensor, *, ignore: tuple[int, ...] = (), backend: str | None = None
) -> tuple[Tensor, int]:
    """Renumber each image's labels to 0, 1, 2, ... in ascending order of the old ones.

    Args:
        labels: [B, H, W], integer or bool, any values.
        ignore: labels that become -1.

    Returns: (labels [B, H, W] int64, num_regions), with num_regions the largest number of labels of
    an image (at least 1), as an int: on a device this is the one function that waits for the
    device, and under torch.compile it breaks the graph.
    """
    check.integers("labels", labels)
    if labels.dim() != 3:
        raise ValueError(f"labels: expected shape [B, H, W], got {list(labels.shape)}")
    ignored = check.integer_list("ignore", ignore)
    if labels.device.type == "meta":
        raise ValueError("labels: expected a device that holds values, got meta")
    compact, counts = algebra.compact_labels(labels, ignored, backend)
    return compact, max(int(counts.max()), 1) if counts.numel() else 1
