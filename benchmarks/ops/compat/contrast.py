"""Contrastive losses: the original code and its drop-ins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ops.compat import Case
from pixelkernels import testing
from pixelkernels.compat import contrastiveseg, metric_learning

TEMPERATURE, BASE, SAMPLES, VIEWS = 0.1, 0.07, 1024, 100


class Configer:
    """ContrastiveSeg's options for Cityscapes."""

    def get(self, section: str, name: str) -> Any:
        return {
            "temperature": TEMPERATURE, "base_temperature": BASE, "max_samples": SAMPLES,
            "max_views": VIEWS,
        }[name]  # fmt: skip

    def exists(self, section: str, name: str) -> bool:
        return False


def seeded(call: Any, *arguments: Any) -> Tensor:
    """The two sides draw by the same random numbers."""
    torch.manual_seed(0)
    return call(*arguments)


def sampled(x: Tensor, labels: Tensor, predict: Tensor) -> tuple[Tensor, Tensor]:
    """ContrastiveSeg's anchors [classes, views, D] of features [B, N, D]: a loop over classes."""
    chance = torch.rand(labels.shape)
    groups = [
        (image, label)
        for image, own in enumerate(labels)
        for label in own.unique()
        if label != -1 and len((own == label).nonzero()) > VIEWS
    ]
    views = int(min(SAMPLES // len(groups), VIEWS))
    anchors, kinds = x.new_zeros(len(groups), views, x.shape[2]), x.new_zeros(len(groups))
    for row, (image, label) in enumerate(groups):
        own, right = labels[image] == label, predict[image] == label
        hard, easy = ((own & kind).nonzero()[:, 0] for kind in (~right, right))
        number = views // 2
        if len(easy) < views / 2:
            number = views - len(easy)
        elif len(hard) < views / 2:
            number = len(hard)
        # ours adds 1 to the numbers of easy pixels, which rounds them
        hard = hard[chance[image, hard].argsort()[:number]]
        easy = easy[(chance[image, easy] + 1).argsort(stable=True)[: views - number]]
        anchors[row] = x[image, torch.cat([hard, easy])]
        kinds[row] = label
    return anchors, kinds


def contrast_of_anchors(
    feats: Tensor, labels: Tensor, predict: Tensor, queue: Tensor | None = None
) -> Tensor:
    """ContrastiveSeg: all similarities, and masks of the positives and the negatives."""
    small = F.interpolate(labels[:, None].float(), feats.shape[2:], mode="nearest")[:, 0].long()
    pixels = feats.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
    anchors, kinds = sampled(pixels, small.flatten(1), predict.flatten(1))
    views = anchors.shape[1]
    rows = torch.cat(anchors.unbind(1))
    bank, bank_kinds, copies = rows, kinds, views
    if queue is not None:
        bank = torch.cat([queue[1:], torch.zeros_like(queue[:1])]).flatten(0, 1)
        classes = torch.tensor([*range(1, len(queue)), 0]).float()
        bank_kinds, copies = classes.repeat_interleave(queue.shape[1]), 1
    same = (kinds[:, None] == bank_kinds).float().repeat(views, copies)
    scores = rows @ bank.T / TEMPERATURE
    scores = scores - scores.max(1, keepdim=True).values.detach()
    positive = same * torch.ones_like(same).scatter_(1, torch.arange(len(rows))[:, None], 0)
    negatives = (scores.exp() * (1 - same)).sum(1, keepdim=True)
    logs = scores - torch.log(scores.exp() + negatives)
    means = (positive * logs).sum(1) / positive.sum(1)
    return -TEMPERATURE / BASE * means.mean()


def supervised_contrast(embeddings: Tensor, labels: Tensor) -> Tensor:
    """pytorch-metric-learning: the lists of all pairs, and masks made of them."""
    matches = labels[:, None] == labels
    lists = (matches.byte().fill_diagonal_(0), (~matches).byte())
    unit = F.normalize(embeddings)
    scores = unit @ unit.T
    positive, negative = torch.zeros_like(scores), torch.zeros_like(scores)
    for mask, pairs in zip((positive, negative), lists, strict=True):
        mask[torch.where(pairs)] = 1
    assert not torch.any((positive != 0) & (negative != 0))
    scores = scores / TEMPERATURE
    scores = scores - scores.max(1, keepdim=True).values.detach()
    kept = (positive + negative).bool()
    least = torch.finfo(scores.dtype).min
    logs = scores - scores.masked_fill(~kept, least).logsumexp(1, keepdim=True)
    counts = positive.sum(1) + torch.finfo(scores.dtype).tiny
    losses = -(positive * logs).sum(1) / counts
    return losses[losses > 0].mean()


def cases() -> list[Case]:
    torch.manual_seed(0)
    feats = F.normalize(torch.randn(2, 256, 128, 256), dim=1)
    labels = testing.coherent_labels(2, 512, 1024, 19)
    predict = labels[:, ::4, ::4].roll(9, 2)
    queue = F.normalize(torch.randn(19, 1000, 256), dim=2)
    embeddings, classes = torch.randn(2048, 128), torch.randint(100, (2048,))
    contrast = contrastiveseg.PixelContrastLoss(Configer())
    differs = "an anchor without a positive is no NaN; without anchors the loss is 0"
    sizes = "2 images, 256 channels, 19 classes, 128x256"
    return [
        Case(
            "ContrastiveSeg", "PixelContrastLoss", "contrastiveseg.PixelContrastLoss", differs,
            sizes, lambda: seeded(contrast, feats, labels, predict),
            lambda: seeded(contrast_of_anchors, feats, labels, predict), leaf=feats, training=True,
        ),
        Case(
            "ContrastiveSeg", "PixelContrastLoss with a memory",
            "contrastiveseg.PixelContrastLoss", differs, f"{sizes}, 1000 entries each",
            lambda: seeded(contrast, feats, labels, predict, queue),
            lambda: seeded(contrast_of_anchors, feats, labels, predict, queue), leaf=feats,
            training=True,
        ),
        Case(
            "pytorch-metric-learning", "SupConLoss", "metric_learning.SupConLoss",
            "all pairs and the default options only", "2048 embeddings, 128 channels, 100 classes",
            lambda: metric_learning.SupConLoss()(embeddings, classes),
            lambda: supervised_contrast(embeddings, classes), leaf=embeddings, training=True,
        ),
    ]  # fmt: skip
