"""What Triton's interpreter lets pass and a GPU does not; on in every test that it runs.

Programs run in random order. A launch fails if

- a program stores or loads what another one stores, or stores what another one loads: programs of
  a launch are not ordered (atomics are exempt);
- one store has different values for one address;
- a program loads what it stored, without `tl.debug_barrier()` in between: another thread of it may
  have stored that;
- an address is in none of the launch's tensors;
- a load from a new tensor reads what nothing has stored.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

# the interpreter makes numbers of arrays with a dimension, which NumPy refuses from 2.4 on
INTERPRETS = np.lib.NumpyVersion(np.__version__) < "2.4.0"
# bytes of a storage that is followed: each takes twelve more
LARGEST = 1 << 26
Builder = interpreter.InterpreterBuilder
load, store = Builder.create_masked_load, Builder.create_masked_store
set_grid_idx, call = Builder.set_grid_idx, interpreter.GridExecutor.__call__

launch: Launch | None = None
# address of a new tensor's memory -> for each byte, whether a kernel has stored there
stored: dict[int, np.ndarray] = {}


class Storage:
    """The memory of a tensor: for each byte that begins an element, who stored and loaded it."""

    def __init__(self, base: int, size: int) -> None:
        self.base, self.end = base, base + size
        # numbers of programs from 1 on, 0 for none and -1 for several; and the epoch of the store
        self.writer, self.epoch, self.reader = (np.zeros(size, np.int32) for _ in range(3))


class Launch:
    def __init__(self, name: str, tensors: list[Tensor]) -> None:
        self.name = name
        self.found: list[str] = []
        # a program's epochs are what its barriers separate
        self.program = self.epoch = 0
        self.programs: list[int] = []
        sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
        self.storages = [Storage(base, size) for base, size in sorted(sizes.items()) if size]
        self.bases = np.array([x.base for x in self.storages], np.uint64)
        self.ends = np.array([x.end for x in self.storages], np.uint64)

    def report(self, text: str, wrong: Any) -> None:
        if count := int(np.count_nonzero(wrong)):
            self.found.append(f"{self.name}, program {self.program - 1}: {text}, {count} elements")

    def storage_numbers(self, addresses: np.ndarray) -> np.ndarray:
        """The storage that begins last before each address, or -1."""
        return np.searchsorted(self.bases, addresses, side="right") - 1

    def require_inside(self, addresses: np.ndarray) -> None:
        """Ends the launch before an access that may end the process."""
        index = self.storage_numbers(addresses)
        inside = index >= 0
        inside[inside] = addresses[inside] < self.ends[index[inside]]
        self.report("an address outside of all tensors", ~inside)
        if not inside.all():
            raise IndexError(self.found[-1])

    def parts(self, addresses: np.ndarray) -> Iterator[tuple[Storage, np.ndarray, np.ndarray]]:
        """The storages that the addresses are in, the offsets there, and which addresses."""
        index = self.storage_numbers(addresses)
        for one in np.unique(index):
            chosen = np.nonzero(index == one)[0]
            storage = self.storages[one]
            yield storage, (addresses[chosen] - self.bases[one]).astype(np.int64), chosen

    def loaded(self, addresses: np.ndarray, values: np.ndarray) -> None:
        for storage, at, chosen in self.parts(addresses):
            writer, others_read = storage.writer[at], self.others(storage.reader[at])
            self.report("loads what another program stores", self.others(writer))
            same = (writer == self.program) & (storage.epoch[at] == self.epoch)
            self.report("loads what it stored, without a barrier", same)
            storage.reader[at] = np.where(others_read, -1, self.program)
            if (known := stored.get(storage.base)) is not None:
                self.report("loads what nothing stored", ~known[at] & is_poison(values[chosen]))

    def stored(self, addresses: np.ndarray, values: np.ndarray) -> None:
        ranks = np.argsort(addresses, kind="stable")
        ordered, bits = addresses[ranks], values.view(f"u{values.itemsize}")[ranks]
        differ = (ordered[1:] == ordered[:-1]) & (bits[1:] != bits[:-1])
        self.report("stores different values to one address", differ)
        for storage, at, _ in self.parts(addresses):
            self.report("stores what another program stores", self.others(storage.writer[at]))
            self.report("stores what another program loads", self.others(storage.reader[at]))
            storage.writer[at], storage.epoch[at] = self.program, self.epoch
            if (known := stored.get(storage.base)) is not None:
                known[at] = True

    def others(self, programs: np.ndarray) -> np.ndarray:
        return (programs != 0) & (programs != self.program)


def is_poison(values: np.ndarray) -> np.ndarray:
    """Whether the values are those that torch fills new memory with."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    return values == (True if values.dtype == bool else np.iinfo(values.dtype).max)


def accessed(pointers: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which lanes are not masked, and the addresses of these."""
    lanes = np.broadcast_to(mask.data, pointers.data.shape).astype(bool)
    return lanes, pointers.data[lanes].ravel()


def checked_load(self: Any, pointers: Any, mask: Any, other: Any, *options: Any) -> Any:
    lanes, addresses = accessed(pointers, mask)
    if launch is not None:
        launch.require_inside(addresses)
    result = load(self, pointers, mask, other, *options)
    if launch is not None and addresses.size:
        launch.loaded(addresses, result.data[lanes].ravel())
    return result


def checked_store(self: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
    lanes, addresses = accessed(pointers, mask)
    if launch is not None and addresses.size:
        launch.require_inside(addresses)
        launch.stored(addresses, np.broadcast_to(value.data, lanes.shape)[lanes].ravel())
    return store(self, pointers, value, mask, *options)


def barrier(self: Any) -> None:
    if launch is not None:
        launch.epoch += 1


def set_shuffled(self: Any, x: int, y: int, z: int) -> None:
    if launch is not None:
        assert self.grid_dim[1:] == (1, 1)
        if not launch.programs:
            launch.programs = list(range(self.grid_dim[0]))
            random.Random(0).shuffle(launch.programs)
        x = launch.programs[x]
        launch.program = x + 1
        launch.epoch += 1
    set_grid_idx(self, x, y, z)


def checked_call(self: Any, *args: Any, **options: Any) -> None:
    global launch
    tensors = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
    followed = all(x.untyped_storage().nbytes() <= LARGEST for x in tensors)
    launch = Launch(self.fn.__name__, tensors) if followed else None
    error = None
    try:
        call(self, *args, **options)
    except Exception as raised:
        error = raised
    found = launch.found if launch else []
    launch = None
    if found:
        raise AssertionError("\n".join(found[:5])) from error
    if error:
        raise error


def followed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Follows the stores to the tensors that the function makes, while these objects live."""

    def run(*args: Any, **options: Any) -> Any:
        made = function(*args, **options)
        plain = type(made) is Tensor and made.device.type == "cpu"
        if plain and 0 < made.untyped_storage().nbytes() <= LARGEST:
            base = made.untyped_storage().data_ptr()
            stored[base] = known = np.zeros(made.untyped_storage().nbytes(), bool)
            weakref.finalize(made, lambda: stored.get(base) is known and stored.pop(base))
        return made

    return run


def activate() -> None:
    """From now on, for the whole process."""
    Builder.create_masked_load, Builder.create_masked_store = checked_load, checked_store
    Builder.create_barrier, Builder.set_grid_idx = barrier, set_shuffled
    interpreter.GridExecutor.__call__ = checked_call
    torch.empty, torch.empty_like = followed(torch.empty), followed(torch.empty_like)
    Tensor.new_empty = followed(Tensor.new_empty)
