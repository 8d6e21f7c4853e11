"""The report of `python -m pixelkernels info`: versions, devices, builds, reasons."""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable
from importlib import metadata
from typing import Any

ENVIRONMENT = (
    "PIXELKERNELS_BACKEND",
    "PIXELKERNELS_CPU_CAPABILITY",
    "TRITON_INTERPRET",
    "CUDA_VISIBLE_DEVICES",
)


def collect() -> dict[str, Any]:
    """All facts; one that cannot be determined does not hide the others."""
    probes: dict[str, Callable[[], Any]] = {
        "versions": _versions,
        "machine": _machine,
        "devices": _devices,
        "build": _build,
        "backends": _backends,
        "environment": lambda: {k: os.environ[k] for k in ENVIRONMENT if k in os.environ},
    }
    return {name: _guarded(probe) for name, probe in probes.items()}


def text(facts: dict[str, Any]) -> str:
    lines = []
    for section, content in facts.items():
        lines.append(section)
        entries = content if isinstance(content, dict) else {"": content}
        width = max((len(name) for name in entries), default=0)
        lines += [f"  {name:{width}}  {_entry(value)}" for name, value in entries.items()]
        lines += [] if entries else ["  none"]
    return "\n".join(lines)


def show(as_json: bool) -> None:
    facts = collect()
    print(json.dumps(facts, indent=2) if as_json else text(facts))


def _guarded(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception as error:  # the report must survive a broken installation
        return f"not found out: {type(error).__name__}: {error}"


def _entry(value: Any) -> str:
    return "; ".join(map(str, value)) or "usable" if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("pixelkernels", "torch", "triton", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    import torch

    from . import extension

    versions["torch"] = torch.__version__
    versions["torch's CUDA"] = str(torch.version.cuda)
    versions["the driver's CUDA"] = extension.driver_cuda() or "no driver"
    return versions


def _machine() -> dict[str, str]:
    import torch

    return {"platform": platform.platform(), "torch threads": str(torch.get_num_threads())}


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": torch.backends.cpu.get_cpu_capability()}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{properties.name}, compute {properties.major}.{properties.minor}"
    return found


def _build() -> dict[str, str]:
    from . import extension

    return extension.BUILD or {"_C": extension.REASONS["cpu"]}


def _backends() -> dict[str, list[str]]:
    from . import dispatch

    return {
        backend: _guarded(functools.partial(dispatch.machine_reasons, backend))
        for backend in dispatch.BACKENDS
    }
