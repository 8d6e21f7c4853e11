"""Networks of torchvision, split into stages whose feature maps the models use."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models import VGG, get_model, resnet, vgg


class ResNetStages(nn.Module):
    """The feature maps of a bottleneck ResNet at strides 2, 4, 8, 16 and 32.

    Args:
        depth: 50, 101 or 152, or the number of blocks in each of the four stages.
        weights: torchvision's name of pretrained weights ("DEFAULT", ...), or None.
        dilated: the last two stages keep stride 8 and use dilation, as in DeepLab.
        width: channels of the first stage's 3x3 convolutions. The maps always have 64, 256, 512,
            1024 and 2048 channels.
    """

    channels = (64, 256, 512, 1024, 2048)

    def __init__(
        self,
        depth: int | Sequence[int],
        *,
        weights: str | None = None,
        dilated: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        dilations = [False, dilated, dilated]
        if isinstance(depth, int):
            net = get_model(
                f"resnet{depth}",
                weights=weights,
                replace_stride_with_dilation=dilations,
                width_per_group=width,
            )
        elif weights is not None:
            raise ValueError("weights: there are none for a ResNet of your own depth")
        else:
            net = resnet.ResNet(
                resnet.Bottleneck,
                list(depth),
                replace_stride_with_dilation=dilations,
                width_per_group=width,
            )
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.stages = nn.ModuleList(
            [nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class VGGStages(nn.Module):
    """The feature maps of VGG16's third, fourth and fifth block before pooling: strides 4, 8, 16.

    Args:
        count: the number of blocks, 1 to 3.
        weights: torchvision's name of pretrained weights ("DEFAULT", ...), or None.
        batch_norm: use the variant with batch norm.
        width: channels of the first block; the maps have 4, 8 and 8 times as many.
    """

    def __init__(
        self,
        count: int = 3,
        *,
        weights: str | None = None,
        batch_norm: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        if width == 64:
            layers = get_model("vgg16_bn" if batch_norm else "vgg16", weights=weights).features
        elif weights is not None:
            raise ValueError(f"weights: there are none for a VGG16 of width {width}, only of 64")
        else:
            plan = [x if isinstance(x, str) else x * width // 64 for x in vgg.cfgs["D"]]
            # VGG initialises the layers
            layers = VGG(vgg.make_layers(plan, batch_norm), num_classes=1).features
        ends = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        # a stage begins with the pooling of the previous block
        starts = [0, *ends[2:]]
        self.stages = nn.ModuleList(layers[starts[i] : ends[2 + i]] for i in range(count))
        self.channels = (4 * width, 8 * width, 8 * width)[:count]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
