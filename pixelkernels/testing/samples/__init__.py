"""Every public operation once.

The test suites, the fuzz, the sanitizers and the wheels' smoke test take their calls from `OPS`, as
torch's own tests take them from OpInfo: what is stated here once holds in all of them.
"""

from __future__ import annotations

from ..op import Op
from . import boundaries, contrast, distance, mutual, regions, similarity, triplet

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        *(*regions.OPS, *triplet.OPS, *similarity.OPS, *contrast.OPS, *mutual.OPS),
        *(*distance.OPS, *boundaries.OPS),
    )
}
