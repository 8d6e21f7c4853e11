"""The differentiable functions as cases (features, labels, R, weights, backend) -> tensor."""

from __future__ import annotations

import pixelkernels as pk


def mean(f, labels, regions, w, backend):
    return pk.region_stats(f, labels, regions, backend=backend).mean


def variance(f, labels, regions, w, backend):
    return pk.region_stats(f, labels, regions, backend=backend).variance


def mean_and_variance(f, labels, regions, w, backend):
    stats = pk.region_stats(f, labels, regions, backend=backend)
    return stats.mean.square().sum(2) + stats.variance


def cas(f, labels, regions, w, backend):
    return pk.cas_loss(f, labels, regions, alpha=0.3, backend=backend)


def cas_released(f, labels, regions, w, backend):
    return pk.cas_loss(f, labels, 2, variant="released", divisor=40, backend=backend)


def means_form(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, backend=backend)


def pairwise_form(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, form="pairwise", backend=backend)


def normalized(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, normalize=True, backend=backend)


def normalized_pairwise(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, form="pairwise", normalize=True, backend=backend)


def discriminative(f, labels, regions, w, backend):
    return pk.discriminative_loss(f, labels, regions, backend=backend)


def discriminative_l1(f, labels, regions, w, backend):
    return pk.discriminative_loss(
        f, labels, regions, norm=1, reduction="pixel", background=0, delta_var=0.1, backend=backend
    )


def background(f, labels, regions, w, backend):
    return pk.background_distance(f, w, backend=backend)


def background_squared(f, labels, regions, w, backend):
    return pk.background_distance(f, w, squared=True, backend=backend)


def background_minmax(f, labels, regions, w, backend):
    return pk.background_distance(f, w, normalize="minmax", backend=backend)


def pool(f, labels, regions, w, backend):
    return pk.masked_average_pool(f, w, backend=backend)


def pool_upsampled(f, labels, regions, w, backend):
    fine = w.repeat_interleave(3, 1).repeat_interleave(2, 2)
    return pk.masked_average_pool(f, fine, upsample="bilinear", backend=backend)


# mining picks pixels by comparing scores, so these agree only where rounding does not change the
# choice
def mined(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, mining="hard", backend=backend)


def released(f, labels, regions, w, backend):
    return pk.metric_expression_loss(f, labels, grad="released", backend=backend)


SMOOTH = (
    mean,
    variance,
    mean_and_variance,
    cas,
    cas_released,
    means_form,
    pairwise_form,
    normalized,
    normalized_pairwise,
    discriminative,
    discriminative_l1,
    background,
    background_squared,
    background_minmax,
    pool,
    pool_upsampled,
)
MINED = (mined, released)
WEIGHTED = (background, background_squared, background_minmax, pool, pool_upsampled)
NORMALIZED = (normalized, normalized_pairwise)
