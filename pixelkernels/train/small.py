"""Options that make each network small enough to train from scratch on a CPU, in minutes."""

from __future__ import annotations

from typing import Any

_RESNET: dict[str, Any] = {"depth": (1, 1, 1, 1), "width": 16}

OPTIONS: dict[str, dict[str, Any]] = {
    "coseg": {
        **_RESNET,
        "displacement": 4,
        "decoder": (64, 64, 48, 32, 32),
        "embedding_channels": 32,
    },
    "menet": {"width": 8, "convolutions": 2},
    "cas": _RESNET,
    "transfer": {**_RESNET, "embedding_channels": 32},
    "interactive": {"batch_norm": True, "width": 16, "channels": 64},
}
