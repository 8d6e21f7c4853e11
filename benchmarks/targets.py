"""The targets of each family, held against the committed results: met, or short by how much.

`report.py` writes the table of each machine whose CPU was measured into README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling import TOLERANCE
from benchmarks.table import markdown
from benchmarks.workload import BOTH, FORWARD

Row = dict[str, Any]
# (workload, variant, mode): its rows, those that were timed
Measured = dict[tuple[str, str, str], list[Row]]

FASTER, MS, MEGABYTES, RATIO = "times faster", "ms", "MB", "times"
# the results count in MiB, the targets in MB
MB = 2**20 / 1e6
NO_GPU = "No GPU has been measured: the targets for GPUs are not judged."
NOT_MEASURED = "not measured"
HEADER = ("what", "inputs", "target", "measured", "verdict")


@dataclass(frozen=True)
class Target:
    """A limit, the least for FASTER and the largest for all others, held to on each input.

    `against` names the peers, of which the fastest counts; None: all. With RATIO, it names the
    input whose time is the unit.
    """

    what: str
    workload: str
    limit: float
    variants: tuple[str, ...] = ("coherent", "random")
    mode: str = FORWARD
    against: tuple[str, ...] | None = None
    opponent: str = "the best peer"
    measure: str = FASTER

    def text(self) -> str:
        if self.measure == FASTER:
            faster = f"{self.limit:g} times faster than" if self.limit > 1 else "no slower than"
            return f"{faster} {self.opponent}"
        of = {MS: "", MEGABYTES: " of extra memory", RATIO: f" the time of {self.opponent}"}
        return f"at most {self.limit:g} {self.measure}{of[self.measure]}"

    def value(self, measured: Measured, variant: str) -> float | None:
        """None where a row that it takes is missing."""
        ours = self._ours(measured, variant)
        if ours is None:
            return None
        ms = float(ours["ms"]["p50"])
        if self.measure == MS:
            return ms
        if self.measure == MEGABYTES:
            return None if ours["extra_mib"] is None else MB * ours["extra_mib"]
        if self.measure == RATIO:
            units = [self._ours(measured, name) for name in self.against or ()]
            return next((ms / unit["ms"]["p50"] for unit in units if unit), None)
        peers = [
            float(row["ms"]["p50"])
            for row in measured[self.workload, variant, self.mode]
            if row["side"] == "peer" and (self.against is None or row["name"] in self.against)
        ]
        return min(peers) / ms if peers else None

    def short_by(self, value: float) -> float:
        """What is missing, as a share of the limit; at most 0 where it is met."""
        return (self.limit - value if self.measure == FASTER else value - self.limit) / self.limit

    def _ours(self, measured: Measured, variant: str) -> Row | None:
        rows = measured.get((self.workload, variant, self.mode), ())
        return next((row for row in rows if row["default"]), None)


def _regions() -> Iterator[Target]:
    yield Target("region statistics of MEnet", "region-stats-menet", 3, mode=BOTH)
    for channels, limit in ((2, 2), (16, 3), (64, 3)):
        for regions in (20, 100):
            what = f"region statistics, C={channels}, R={regions}"
            yield Target(what, f"region-stats-c{channels}-r{regions}", limit, mode=BOTH)


def _distance() -> Iterator[Target]:
    hard = ("full", "single", "diagonal", "checkerboard", "empty")
    for what, workload in (
        ("distance transform, 16x480x854", "distance-transform-davis"),
        ("distance transform, 4K", "distance-transform-4k"),
    ):
        yield Target(what, workload, 1.5)
        yield Target(
            what, workload, 3, hard, against=("coherent",), opponent="coherent", measure=RATIO
        )
    compiled, eager = ("torch.compile(broadcast)",), ("eager broadcast",)
    for about in (
        ("click maps, tanh", "click-maps-ritm-tanh"),
        ("click maps, euclidean", "click-maps-ritm-euclidean"),
        ("click maps, 4K", "click-maps-4k"),
        ("click maps, hundreds of clicks", "click-maps-many"),
    ):
        yield Target(*about, 1.3, ("random",), against=compiled, opponent="torch.compile")
        yield Target(*about, 10, ("random",), against=eager, opponent="eager broadcasting")


def _similarity() -> Iterator[Target]:
    once = ("coherent",)
    few = "label transfer, K=200", "label-transfer-k200"
    chunked = ("eager in chunks", "torch.compile(in chunks)", "eager in chunks, in place")
    yield Target(*few, 1.3, once, against=chunked, opponent="the best chunked peer")
    yield Target(*few, 3, once, against=("eager all scores",), opponent="plain eager code")
    yield Target("label transfer, K=2100", "label-transfer-k2100", 1.7, once)
    prototypes = "label transfer by prototypes", "label-transfer-prototypes"
    yield Target(*prototypes, 6, once, measure=MS)
    prior = "prior mask, half of the support masked", "prior-mask"
    normalised = ("eager normalised first", "torch.compile(normalised first)")
    dropped = ("eager masked-out support dropped first",)
    yield Target(
        *prior, 1.5, ("half",), against=normalised, opponent="the best peer that normalises first"
    )
    yield Target(
        *prior, 1, ("half",), against=dropped, opponent="the peer that drops masked positions"
    )
    pairs = "loss over all pairs", "pair-loss"
    chunks, whole = ("torch.compile(chunks), checkpointed",), ("torch.compile(whole matrix)",)
    yield Target(*pairs, 3, once, BOTH, chunks, "compiled chunks")
    yield Target(*pairs, 1, once, BOTH, whole, "the whole matrix compiled")
    yield Target(*pairs, 100, once, BOTH, measure=MEGABYTES)


def _triplet() -> Iterator[Target]:
    layouts = ("coherent", "channels_last")
    eager = (
        "eager nonzero and randperm, one gather",
        "eager largest of random keys one gather",
    )
    loss = "IS-Triplet loss with its sampling", "is-triplet-loss"
    yield Target(*loss, 2, layouts, BOTH, eager, "the best eager peer")
    hinge = "triplet hinge, K=1000", "triplet-hinge-k1000"
    learning = ("pytorch-metric-learning",)
    yield Target(*hinge, 20, layouts, BOTH, learning, *learning)
    permuted = ("eager nonzero and randperm",)
    yield Target(
        "sampling pixels", "sample-pixels", 3, against=permuted, opponent="nonzero and randperm"
    )


TARGETS: tuple[Target, ...] = (*_regions(), *_distance(), *_similarity(), *_triplet())

DROP_IN = 3.0
# one product of matrices and little else: there is nothing to win three times
PRODUCTS = ("pfenet.prior", "hdmnet.get_similarity", "sccan.generate_prior")


def tables(results: Path) -> str:
    """One table for each machine folder with CPU results; empty without any."""
    parts, gpu = [], False
    for folder in sorted(path for path in results.glob("*") if path.is_dir()):
        contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        gpu = gpu or any(content["environment"]["device"] == "cuda" for content in contents)
        contents = [c for c in contents if c["environment"]["device"] == "cpu"]
        if contents:
            parts += [f"**{contents[0]['environment']['machine']}**", _table(folder, contents)]
    return "\n\n".join(parts if gpu or not parts else [*parts, NO_GPU])


def _table(folder: Path, contents: list[Row]) -> str:
    measured: Measured = {}
    for row in (row for content in contents for row in content["rows"] if "ms" in row):
        measured.setdefault((row["workload"], row["variant"], row["mode"]), []).append(row)
    lines = [_line(target, measured) for target in TARGETS]
    lines += _drop_ins(_content(folder / "compat" / "compat.json"))
    lines += _scaling(_content(folder / "scaling" / "scaling.json"))
    return markdown(HEADER, lines)


def _content(path: Path) -> Row | None:
    return json.loads(path.read_text()) if path.exists() else None


def _line(target: Target, measured: Measured) -> list[str]:
    values = {variant: target.value(measured, variant) for variant in target.variants}
    verdicts = {variant: _verdict(target, value) for variant, value in values.items()}
    same = len(set(verdicts.values())) == 1
    verdict = (
        verdicts[target.variants[0]]
        if same
        else "; ".join(f"{variant} {text}" for variant, text in verdicts.items() if text != "met")
    )
    cells = ["-" if value is None else f"{value:.2f}" for value in values.values()]
    return [target.what, ", ".join(values), target.text(), ", ".join(cells), verdict]


def _verdict(target: Target, value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    missing = target.short_by(value)
    return "met" if missing <= 0 else f"short by {_percent(missing)}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"


def _drop_ins(content: Row | None) -> list[list[str]]:
    """Those that are short of the target, and how many are not."""
    wanted = f"{DROP_IN:g} times faster than the original"
    if content is None:
        return [["drop-ins", "", wanted, "", NOT_MEASURED]]
    gains = {row["ours_is"]: row["theirs_ms"] / row["ours_ms"] for row in content["rows"]}
    gains = {name: gain for name, gain in gains.items() if name not in PRODUCTS}
    short = {name: gain for name, gain in gains.items() if gain < DROP_IN}
    lines = [
        [f"drop-in `{name}`", "", wanted, f"{gain:.2f}", f"short by {_percent(1 - gain / DROP_IN)}"]
        for name, gain in short.items()
    ]
    what = "drop-ins that are not one product of matrices"
    return [*lines, [what, "", wanted, "", f"met by {len(gains) - len(short)} of {len(gains)}"]]


def _scaling(content: Row | None) -> list[list[str]]:
    """What grows faster with the size than it should, and how much does not."""
    if content is None:
        return []
    wanted = f"exponent at most {TOLERANCE:g} above theory"
    above = {
        f"{series['name']}: {what} in {series['variable']}": series[fit] - series[theory]
        for what, fit, theory in (
            ("time", "exponent", "theory"),
            ("memory", "memory_exponent", "memory_theory"),
        )
        for series in content["series"]
        if series.get(fit) is not None and series.get(theory) is not None
    }
    lines = [
        [name, "", wanted, f"{over:.2f} above", f"short by {over - TOLERANCE:.2f}"]
        for name, over in above.items()
        if over > TOLERANCE
    ]
    kept = f"met by {len(above) - len(lines)} of {len(above)}"
    return [*lines, ["growth of time and of memory with the size", "", wanted, "", kept]]
