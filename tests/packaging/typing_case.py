"""What a strict type checker tells a user of every public name. `make lint` checks it; nothing has
to run it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor
from typing_extensions import assert_type

import pixelkernels as pk
from pixelkernels import compat, models
from pixelkernels import numpy as arrays


def regions(features: Tensor, labels: Tensor, weights: Tensor) -> None:
    stats = pk.region_stats(features, labels, 20, backend="eager")
    assert_type(stats, pk.RegionStats)
    assert_type(stats.count, Tensor)
    assert_type(stats.mean, Tensor)
    count, mean, variance = stats
    assert_type(count, Tensor)
    assert_type(mean, Tensor)
    assert_type(variance, Tensor)
    assert_type(pk.cas_loss(features, labels, 20, alpha=0.4), Tensor)
    assert_type(pk.cas_loss(features, labels, 2, variant="released", divisor=40), Tensor)
    assert_type(pk.metric_expression_loss(features, labels, mining="hard", normalize=True), Tensor)
    assert_type(pk.discriminative_loss(features, labels, 20, weights=(1, 1, 0), norm=1), Tensor)
    assert_type(pk.background_distance(features, weights, normalize="minmax"), Tensor)
    assert_type(pk.masked_average_pool(features, weights, upsample="bilinear"), Tensor)
    compact, num_regions = pk.compact_labels(labels, ignore_index=(0, 255))
    assert_type(compact, Tensor)
    assert_type(num_regions, int)
    assert_type(pk.CASLoss(alpha=0.4).forward(features, labels, 20), Tensor)
    assert_type(pk.MetricExpressionLoss(mining="hard").forward(features, labels), Tensor)
    assert_type(pk.DiscriminativeLoss(delta_var=1.0).forward(features, labels, 20), Tensor)


def distance(points: Tensor, kinds: Tensor, mask: Tensor, generator: Generator) -> None:
    assert_type(pk.click_maps(points, kinds, (64, 96), encoding="disk", radius=5), Tensor)
    assert_type(pk.distance_transform(mask, sampling=(1.0, 2.0)), Tensor)
    assert_type(pk.signed_distance(mask, spatial_dims=3, boundary="inner"), Tensor)
    assert_type(pk.boundary_loss(points, kinds, classes=[1], reduction="sum"), Tensor)
    assert_type(pk.hausdorff_loss(points, mask, alpha=1, batch=True), Tensor)
    assert_type(pk.BoundaryLoss(classes=(0, 1)).forward(points, kinds), Tensor)
    assert_type(pk.HausdorffLoss(reduction="none").forward(points, kinds), Tensor)
    nearest = pk.distance_transform(mask, return_indices=True)
    assert_type(nearest, pk.DistanceTransform)
    assert_type(pk.expand_labels(mask, 2, spatial_dims=3), Tensor)
    click = pk.next_click(mask, mask, not_clicked=mask, ignore_index=255)
    assert_type(click, pk.NextClick)
    assert_type(click.valid, Tensor)
    clicks = pk.simulate_clicks(mask, 3, 3, strategy="boundary", generator=generator)
    assert_type(clicks, tuple[Tensor, Tensor])
    assert_type(pk.ClickMaps(encoding="disk", radius=5).forward(points, kinds, (64, 96)), Tensor)


def similarity(query: Tensor, reference: Tensor, labels: Tensor, weights: Tensor) -> None:
    scores = pk.matching_scores(query, reference, labels, 3, reduce="topk", k=5, scale=weights)
    assert_type(scores, Tensor)
    found = pk.label_transfer(query, reference, labels, 3, metric="cosine", transform="sigmoid")
    assert_type(found, pk.TransferredLabels)
    assert_type(found.labels, Tensor)
    assert_type(found.scores, Tensor)
    drawn = pk.sample_reference(reference, labels, 3, num_per_class=100)
    assert_type(drawn, tuple[Tensor, Tensor])
    anchors = pk.sample_anchors(query, labels, labels, max_samples=512, max_views=50)
    assert_type(anchors, pk.Anchors)
    assert_type(anchors.features, Tensor)
    assert_type(pk.prior_mask(query, reference, weights, reduce="softmax", normalize=None), Tensor)
    loss = pk.pair_similarity_loss(query, reference, labels, labels, training=True, group=None)
    assert_type(loss, Tensor)
    transfer = pk.LabelTransfer(metric="cosine")
    assert_type(transfer.forward(query, reference, labels, 3), pk.TransferredLabels)
    assert_type(pk.PriorMask(eps=0.0).forward(query, reference, weights), Tensor)
    rows, row_labels = query.flatten(1), labels.flatten()
    loss = pk.pixel_contrast_loss(rows, row_labels, rows, row_labels, denominator="all")
    assert_type(loss, Tensor)
    assert_type(pk.PixelContrastLoss(reduction="sum").forward(rows, row_labels), Tensor)
    siamese = pk.SiameseSimilarityLoss(affine=False)
    assert_type(siamese.forward(query, reference, labels, labels), Tensor)


def matches(a: Tensor, b: Tensor, mask: Tensor, pairs: Tensor) -> None:
    found = pk.mutual_matches(a, b, mode="nearest", threshold=0.5, mask_a=mask, border=2)
    assert_type(found, pk.Matches)
    assert_type(found.confidence, Tensor)
    assert_type(pk.dual_softmax_loss(a, b, pairs, gamma=0, reduction="none"), Tensor)
    assert_type(pk.DualSoftmaxLoss(alpha=1).forward(a, b, pairs, mask_b=mask), Tensor)


def triplet(features: Tensor, mask: Tensor, generator: Generator) -> None:
    pixels = pk.sample_pixels(mask, 100, generator=generator)
    assert_type(pixels, Tensor)
    assert_type(pk.triplet_hinge(features, pixels, pixels, pixels, reduction="none"), Tensor)
    assert_type(pk.is_triplet_loss(features, mask, num_samples=5000, squared=True), Tensor)
    assert_type(pk.ISTripletLoss(margin=1.0).forward(features, mask), Tensor)


def backends(features: Tensor, labels: Tensor) -> str:
    assert_type(pk.available_backends(), tuple[str, ...])
    assert_type(pk.explain("region_stats", features, labels, 20), dict[str, list[str]])
    try:
        with pk.use_backend("cuda"):
            pk.region_stats(features, labels, 20)
    except pk.BackendUnavailable as error:
        return str(error)
    return ""


def on_arrays(points: NDArray[np.float32], kinds: NDArray[np.int64]) -> None:
    maps = arrays.click_maps(points, kinds, (64, 96))
    assert_type(maps, NDArray[np.float32])
    mask = maps[:, 0] < 5
    assert_type(arrays.distance_transform(mask), NDArray[np.float32])
    assert_type(arrays.distance_transform(mask, squared=True), NDArray[np.int32])
    nearest = arrays.distance_transform(mask, spatial_dims=3, return_indices=True)
    assert_type(nearest, arrays.DistanceTransform)
    click = arrays.next_click(mask, mask)
    assert_type(click, arrays.NextClick)
    assert_type(click.points, NDArray[np.int64])


def networks(images: Tensor, masks: Tensor) -> Iterator[Tensor]:
    saliency = models.MEnet(width=8)
    assert_type(saliency.loss(images, masks, mining=None), Tensor)
    assert_type(saliency.forward(images), models.Saliency)
    assert_type(models.CASNet(2).choose_channel(images, masks), int)
    assert_type(models.CoSegNet().forward(images), models.CoSegmentation)
    transfer = models.LabelTransferNet(64)
    yield from transfer.propagate(images, masks, 3)
    interactive = models.FewShotInteractiveNet()
    support = models.Support(images, masks)
    for step in models.click_loop(interactive, images, support, masks, refinement="after"):
        assert_type(step, models.Step)
        assert_type(step.clicks, models.Clicks)
        logits = models.refined_logits(interactive, images, step.clicks, support)
        assert_type(models.dice_loss(logits, masks), Tensor)
    yield models.adaptive_mask(saliency.saliency(images))
    yield models.class_agnostic_cross_entropy(images, masks)
    yield models.displacement_correlation(images, images, 3)


def drop_ins() -> compat.Patch:
    with compat.patch("scipy") as patched:
        assert_type(patched, compat.Patch)
    return compat.patch("ritm", "DistMaps", package="gui.ritm")
