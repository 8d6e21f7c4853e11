"""Checkpoints that know the run they belong to."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

ADVICE = "pass another --out or delete it"


def require_writable(file: Path) -> None:
    """Raises OSError if `save` cannot write the file: before training, not after it."""
    fresh = _fresh(file)
    fresh.touch()
    fresh.unlink()


def save(state: dict[str, Any], file: Path) -> None:
    # renaming is atomic: an interruption keeps the previous checkpoint
    fresh = _fresh(file)
    # given a path, torch.save hides why it cannot write
    with fresh.open("wb") as stream:
        torch.save(state, stream)
    fresh.replace(file)


def load(file: Path, fingerprint: dict[str, Any], device: str) -> dict[str, Any]:
    """The state that `save` wrote, with this fingerprint among it.

    Args:
        file: of the checkpoint.
        fingerprint: the choices that both runs must share, by the name of their option. Anything
            that is no option is named without dashes.
        device: of the tensors.

    Raises ValueError if the file is damaged or belongs to another run.
    """
    try:
        # torch.load does not compare the checksums
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # an unpickler of damaged bytes raises whatever it stumbles over
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file}: is no readable checkpoint ({reason}); {ADVICE}") from error
    written = state.get("fingerprint") if isinstance(state, dict) else None
    if not isinstance(written, dict):
        raise ValueError(
            f"{file}: does not say from which data and options it was trained; {ADVICE}"
        )
    names = [name for name, value in fingerprint.items() if written.get(name) != value]
    if names:
        then, now = (", ".join(_stated(x, name) for name in names) for x in (written, fingerprint))
        raise ValueError(f"{file}: was written with {then}, this run has {now}; {ADVICE}")
    return state


def _fresh(file: Path) -> Path:
    return file.with_suffix(".new")


def _stated(fingerprint: dict[str, Any], name: str) -> str:
    """An option as on the command line."""
    value = fingerprint.get(name)
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {value}"
