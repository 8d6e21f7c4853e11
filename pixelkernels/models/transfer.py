"""Similarity learning for dense label transfer (Najafi et al.): labels of one annotated frame are
propagated through a video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from pixelkernels.similarity import SiameseSimilarityLoss, label_transfer, sample_reference

from .backbones import ResNetStages
from .layers import check_images, check_like, resized, resized_labels, size_of

RATES = (6, 12, 18, 24)
# stands for -inf, which interpolation would turn into NaN; below every score also when mixed
NONE = -1e30


class LabelTransferNet(nn.Module):
    """One branch of the Siamese network: a DeepLab ResNet with a decoder that embeds every second
    row and column, and the batch norm of the inner products of two branches.

    Convolutions of dilations 6, 12, 18 and 24 on the ResNet's map of stride 8 are summed, as in
    DeepLab; a transposed convolution and then bilinear interpolation double the size. About 52
    million parameters in the paper's configuration.

    Layers: `backbone` (ResNetStages, dilated to stride 8), `pyramid`, `decoder`, `similarity`
    (SiameseSimilarityLoss: the batch norm).

    Args:
        embedding_channels: D.
        depth: of the ResNet, see ResNetStages.
        weights: of the ResNet, torchvision's name or None.
        width: of the ResNet.
    """

    LEAST = 33

    def __init__(
        self,
        embedding_channels: int = 128,
        *,
        depth: int | Sequence[int] = 101,
        weights: str | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.backbone = ResNetStages(depth, weights=weights, dilated=True, width=width)
        self.pyramid = nn.ModuleList(
            nn.Conv2d(self.backbone.channels[-1], embedding_channels, 3, padding=r, dilation=r)
            for r in RATES
        )
        self.decoder = nn.ConvTranspose2d(embedding_channels, embedding_channels, 3, 2, padding=1)
        self.similarity = SiameseSimilarityLoss()

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> embeddings [B, D, ceil(H / 2), ceil(W / 2)]."""
        check_images(images, "B 3 H W", self.LEAST)
        height, width = size_of(images)
        deep = self.backbone(images)[-1]
        x = sum(branch(deep) for branch in self.pyramid)
        x = self.decoder(x, output_size=[-(-height // 4), -(-width // 4)])
        return resized(x, (-(-height // 2), -(-width // 2)))

    def loss(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        *,
        pairs: str = "sampled",
        num_per_class: int = 100,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Binary cross entropy of pairs of pixels, one from each frame: do they share a label?

        Args:
            images: [B, 2, 3, H, W], two frames of each video.
            labels: [B, 2, H, W]; pixels with labels outside [0, num_classes) are in no pair.
            num_classes: the largest number of classes in a frame.
            pairs: "sampled" draws `num_per_class` pixels of each class from each frame, as in the
                paper (section 2.2); "all" uses every pair of embedded pixels.
            generator: of the sampling.
        """
        check_images(images, "B 2 3 H W", self.LEAST)
        check_like("labels", labels, images)
        if pairs not in ("sampled", "all"):
            raise ValueError(f"pairs: expected sampled or all, got {pairs!r}")
        features = self(images.flatten(0, 1))
        small = resized_labels(labels.flatten(0, 1), size_of(features))
        # the two frames of a video are adjacent
        frames, targets = ([x[0::2], x[1::2]] for x in (features, _classes(small, num_classes)))
        if pairs == "sampled":
            drawn = [
                sample_reference(x, t, num_classes, num_per_class, generator=generator)
                for x, t in zip(frames, targets, strict=True)
            ]
            frames, targets = map(list, zip(*drawn, strict=True))
        return self.similarity(*frames, *targets)

    @torch.no_grad()
    def transfer(
        self, query: Tensor, reference: Tensor, labels: Tensor, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Labels of every pixel of the query's frame (eq. 3).

        Args:
            query: embeddings [B, D, h, w].
            reference: embeddings of annotated pixels: [B, D, K], as drawn by `sample_reference`, or
                [B, D, h', w'].
            labels: of the reference: [B, K] or [B, h', w'].
            num_classes: L.

        Returns: (labels [B, h, w], -1 if the reference has none; scores [B, L, h, w]). A score is
        the sum of the normalised inner products with the points of a class.
        """
        norm = self.similarity.state_dict()
        scale = norm["weight"] * (norm["running_var"] + self.similarity.eps).rsqrt()
        shift = norm["bias"] - norm["running_mean"] * scale
        found = label_transfer(
            *(query, reference, labels, num_classes), scale=scale.squeeze(), shift=shift.squeeze()
        )
        return found.labels, found.scores

    @torch.no_grad()
    def propagate(
        self,
        frames: Iterable[Tensor],
        labels: Tensor,
        num_classes: int,
        *,
        num_per_class: int = 100,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Labels of every frame of a video, from the annotation of the first frame.

        Memory does not grow with the video: the reference is `num_per_class` embedded pixels of
        each class of the first frame, and frames are processed one by one.

        Args:
            frames: images [3, H, W], the annotated one first.
            labels: of the first frame, [H, W].
            num_classes: L.

        Yields: labels [H, W], int64, of each frame, from scores resized to the frame's size.
        """
        reference = drawn = None
        for frame in frames:
            embedding = self(frame[None])
            if reference is None or drawn is None:
                check_like("labels", labels, frame)
                small = resized_labels(labels[None], size_of(embedding))
                reference, drawn = sample_reference(
                    *(embedding, _classes(small, num_classes), num_classes, num_per_class),
                    generator=generator,
                )
            _, scores = self.transfer(embedding, reference, drawn, num_classes)
            best, found = resized(scores.clamp(min=NONE), size_of(frame)).max(1)
            yield torch.where(best > NONE / 2, found, -1)[0]


def _classes(labels: Tensor, num_classes: int) -> Tensor:
    return torch.where((labels >= 0) & (labels < num_classes), labels, -1)
