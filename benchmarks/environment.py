"""The conditions of a measurement: machine, versions, commit, date."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import pixelkernels
from pixelkernels._core import extension

ROOT = Path(__file__).resolve().parents[1]


def describe(device: str) -> dict[str, object]:
    """The machine, versions, commit and date, as JSON values; None where unknown."""
    facts: dict[str, object] = {
        "device": device,
        "machine": device_name(device),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_kernels": extension.BUILD.get("cpu_capability"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "pixelkernels": pixelkernels.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        facts |= {
            "compute_capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return facts


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else cpu_name()


def cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def slug(name: str) -> str:
    """The name of a machine's results folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def commit() -> str | None:
    """The commit of the working tree, marked if it has changes; without a repository, the value of
    PIXELKERNELS_COMMIT.
    """
    head = _output("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if head is None:
        return os.environ.get("PIXELKERNELS_COMMIT")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--", "csrc", "pixelkernels")
    return f"{head} with changes" if changed else head


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
