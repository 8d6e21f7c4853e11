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


# the papers' rates are of pretrained networks, or of 100 000 steps; these are of small networks
# from scratch and a few hundred steps
SMALL_RATES = {"coseg": 0.02, "menet": 0.03, "cas": 0.05, "transfer": 0.03, "interactive": 0.02}


class Task(Protocol):
    """A network on a data set. All randomness comes from the generator, so a run can resume."""

    network: nn.Module

    @property
    def truth(self) -> Tensor:
        """Labels [N, H, W], the best possible prediction; -1 where unlabelled."""
        ...

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

    @property
    def truth(self) -> Tensor:
        """1 is object, whatever its label."""
        return torch.where(self.labels < 0, -1, (self.labels > 0).long())

    def draw(self, batch: int, count: int, generator: torch.Generator) -> Tensor:
        """[batch, count] indices. The images of a row differ, and those of the whole batch as far
        as the data set reaches: batch norm of one image several times, whose deepest map is a
        single pixel, sees no variance, and the loss jumps.
        """
        images = len(self.data)
        if images < count:
            raise ValueError(f"expected at least {count} images, got {images}")
        order = torch.randperm(images, generator=generator, device=self.images.device)
        turns = torch.arange(batch * count, device=order.device).view(batch, count)
        return order[turns % images]

    def sgd(self, rate: float, weight_decay: float, given: float | None) -> torch.optim.Optimizer:
        chosen = rate if given is None else given
        return torch.optim.SGD(
            self.network.parameters(), lr=chosen, momentum=0.9, weight_decay=weight_decay
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
        """Half of the largest saliency of the image. The paper's threshold, twice the mean, exceeds
        every saliency where an object covers most of its image: nothing would be predicted.
        """
        return (self.network.saliency(self.images) >= 0.5).long()


class ClassAgnosticTask(_Task):
    network: CASNet

    def __init__(self, data: Folder, device: str, *, kind: str = "cas", **options: Any) -> None:
        super().__init__(CASNet(**options), data, device)
        self.kind = kind
        self.regions, self.num_regions = compact_labels(self.labels, ignore_index=-1)

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        chosen = self.draw(batch, 1, generator)[:, 0]
        return self.network.loss(
            self.images[chosen], self.regions[chosen], self.num_regions, kind=self.kind
        )

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        return self.sgd(1e-3, 1e-4, rate)

    def predict(self) -> Tensor:
        """Object is where the channel that correlates with the objects has the largest value."""
        channel = self.network.choose_channel(self.images, self.labels > 0)
        with torch.no_grad():
            return (self.network(self.images).argmax(1) == channel).long()


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

    @property
    def truth(self) -> Tensor:
        return self.labels

    def loss(self, batch: int, generator: torch.Generator, epoch: int) -> Tensor:
        pairs = self.draw(batch, 2, generator)
        return self.network.loss(
            *(self.images[pairs], self.targets[pairs], len(self.classes)),
            pairs=self.pairs,
            generator=generator,
        )

    def optimizer(self, rate: float | None) -> torch.optim.Optimizer:
        rate = 2.5e-4 if rate is None else rate
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
