"""Inputs and comparisons that the tests and the benchmarks share."""

from .inputs import (
    LAYOUTS,
    coherent_labels,
    features,
    random_labels,
    same_draws,
    weights,
)
from .tolerances import assert_within_budget

__all__ = [
    "LAYOUTS",
    "assert_within_budget",
    "coherent_labels",
    "features",
    "random_labels",
    "same_draws",
    "weights",
]
