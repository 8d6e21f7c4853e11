"""Errors planted in the GPU sources, to see which the tests without a GPU find; `make mutants`."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` becomes `new` in a file of the repository, where `old` occurs for the n-th time."""

    kind: str
    path: str
    old: str
    new: str
    occurrence: int = 0

    def applied(self, text: str) -> str:
        parts = text.split(self.old)
        assert len(parts) > self.occurrence + 1, f"{self.path} has changed: {self.old!r}"
        before = self.old.join(parts[: self.occurrence + 1])
        return before + self.new + self.old.join(parts[self.occurrence + 1 :])

    def line(self, text: str) -> int:
        return self.old.join(text.split(self.old)[: self.occurrence + 1]).count("\n") + 1
