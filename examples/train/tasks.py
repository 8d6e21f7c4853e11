"""How each network is trained: batches, loss and optimizer as in its paper; and how it predicts."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixelkernels.distance import simulate_clicks
from pixelkernels.models import (
    CASNet,
    Clicks,
    CoSegNet,
    FewShotInteractiveNet,
    LabelTransferNet,
    MEnet,
    Support,
)
from pixelkernels.regions import compact_labels

from .folder import Folder

_SMALL_RESNET: dict[str, Any] = {"depth": (1, 1, 1, 1), "width": 16}

# options of networks small enough to train from scratch on a CPU, in minutes
SMALL: dict[str, dict[str, Any]] = {
    "coseg": {
        **_SMALL_RESNET,
        "displacement": 4,
        "decoder": (64, 64, 48, 32, 32),
        "embedding_channels": 32,
    },
    "menet": {"width": 8, "convolutions": 2},
    "cas": _SMALL_RESNET,
    "transfer": {**_SMALL_RESNET, "embedding_channels": 32},
    "interactive": {"batch_norm": True, "width": 16, "channels": 64},
}


class Task(Protocol):
    """A network on a data set. All randomness comes from the generator, so a run can resume."""

    network: nn.Module

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        """Of `batch` random items. An epoch is as many items as the data set has."""
        ...

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        """The paper's, with another learning rate if one is given."""
        ...

    def predict(self) -> Tensor:
        """Labels [N, H, W] of all images of the data set."""
        ...


class _Task:
    def __init__(self, network: nn.Module, data: Folder, device: str) -> None:
        self.network = network.to(device)
        self.data = data
        self.images, self.labels = data.images.to(device), data.labels.to(device)

    def draw(self, batch: int, count: int, generator: torch.Generator) -> Tensor:
        """[batch, count] indices of different images."""
        if len(self.data) < count:
            raise ValueError(f"expected at least {count} images, got {len(self.data)}")
        weights = torch.ones(batch, len(self.data), device=self.images.device)
        return torch.multinomial(weights, count, generator=generator)

    def sgd(self, rate: float, weight_decay: float, given: float | None) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            self.network.parameters(), lr=given or rate, momentum=0.9, weight_decay=weight_decay
        )


class CoSegmentationTask(_Task):
    network: CoSegNet
    DECAY = 0.85  # of lambda, after each epoch

    def __init__(
        self, data: Folder, device: str, *, triplet_weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(CoSegNet(**options), data, device)
        self.triplet_weight = triplet_weight

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        pairs = self.draw(batch, 2, generator)
        masks = self.labels[pairs] > 0
        weight = self.triplet_weight * self.DECAY**epoch
        return self.network.loss(
            self.images[pairs], masks, triplet_weight=weight, generator=generator
        )

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        return self.sgd(1e-4, 1e-4, rate)

    def predict(self) -> Tensor:
        partner = self.images.roll(-1, 0)
        return self.network.predict(torch.stack([self.images, partner], 1))[:, 0].long()


class SaliencyTask(_Task):
    network: MEnet

    def __init__(self, data: Folder, device: str, **options: Any) -> None:
        super().__init__(MEnet(**options), data, device)

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        chosen = self.draw(batch, 1, generator)[:, 0]
        return self.network.loss(self.images[chosen], self.labels[chosen] > 0)

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        return self.sgd(0.1, 1e-8, rate)

    def predict(self) -> Tensor:
        return self.network.predict(self.images).long()


class ClassAgnosticTask(_Task):
    network: CASNet

    def __init__(self, data: Folder, device: str, *, kind: str = "cas", **options: Any) -> None:
        super().__init__(CASNet(**options), data, device)
        self.kind = kind
        self.regions, self.num_regions = compact_labels(self.labels)

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        chosen = self.draw(batch, 1, generator)[:, 0]
        return self.network.loss(
            self.images[chosen], self.regions[chosen], self.num_regions, kind=self.kind
        )

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        return self.sgd(1e-3, 1e-4, rate)

    def predict(self) -> Tensor:
        """The channel of the largest value."""
        with torch.no_grad():
            return self.network(self.images).argmax(1)


class LabelTransferTask(_Task):
    """The data set is one video, its frames sorted by name; the first frame is annotated."""

    network: LabelTransferNet

    def __init__(
        self, data: Folder, device: str, *, pairs: str = "sampled", **options: Any
    ) -> None:
        super().__init__(LabelTransferNet(**options), data, device)
        self.pairs = pairs
        self.classes = torch.unique(self.labels[self.labels >= 0])
        # numbered over the whole video, so that an object keeps its number
        index = torch.searchsorted(self.classes, self.labels.clamp(min=int(self.classes[0])))
        self.targets = torch.where(self.labels >= 0, index, -1)

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        pairs = self.draw(batch, 2, generator)
        return self.network.loss(
            *(self.images[pairs], self.targets[pairs], len(self.classes)),
            pairs=self.pairs,
            generator=generator,
        )

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        rate = rate or 2.5e-4
        decoder = [*self.network.pyramid.parameters(), *self.network.decoder.parameters()]
        others = [*self.network.backbone.parameters(), *self.network.similarity.parameters()]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": decoder, "lr": 2 * rate}]
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=5e-4)

    def predict(self) -> Tensor:
        generator = torch.Generator(self.images.device).manual_seed(0)
        frames = self.network.propagate(
            self.images, self.targets[0], len(self.classes), generator=generator
        )
        found = torch.stack(list(frames))
        return torch.where(found >= 0, self.classes[found], -1)


class InteractiveTask(_Task):
    """All labelled pixels of an image are one instance; all images show the same class."""

    network: FewShotInteractiveNet

    def __init__(
        self,
        data: Folder,
        device: str,
        *,
        shots: int = 1,
        clicks: tuple[int, int] = (3, 3),
        **options: Any,
    ) -> None:
        super().__init__(FewShotInteractiveNet(**options), data, device)
        self.shots, self.clicks = shots, clicks

    def episode(self, chosen: Tensor) -> tuple[Tensor, Tensor, Support]:
        """Query images, their masks, and the support; `chosen` [B, 1 + shots] indices."""
        masks = self.labels > 0
        support = Support(self.images[chosen[:, 1:]], masks[chosen[:, 1:]])
        return self.images[chosen[:, 0]], masks[chosen[:, 0]], support

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        images, masks, support = self.episode(self.draw(batch, 1 + self.shots, generator))
        clicks = Clicks(*simulate_clicks(masks, *self.clicks, generator=generator))
        return self.network.loss(images, clicks, support, masks)

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        return self.sgd(2.5e-3, 1e-4, rate)

    def predict(self) -> Tensor:
        """From simulated clicks, with the following images as support."""
        count = len(self.data)
        order = torch.arange(count, device=self.images.device)
        images, masks, support = self.episode(
            torch.stack([(order + i) % count for i in range(1 + self.shots)], 1)
        )
        generator = torch.Generator(self.images.device).manual_seed(0)
        clicks = Clicks(*simulate_clicks(masks, *self.clicks, generator=generator))
        with torch.no_grad():
            return (self.network(images, clicks, support) > 0).long()


TASKS: dict[str, Any] = {
    "coseg": CoSegmentationTask,
    "menet": SaliencyTask,
    "cas": ClassAgnosticTask,
    "transfer": LabelTransferTask,
    "interactive": InteractiveTask,
}
