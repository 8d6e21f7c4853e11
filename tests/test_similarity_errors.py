"""Bad input to the similarity family: every error names the argument."""

from __future__ import annotations

import pytest
import torch

import pixelkernels as pk

Q, R = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 7)
Y = torch.zeros(2, 7, dtype=torch.int64)
S, W = torch.zeros(2, 3, 6, 5), torch.ones(2, 6, 5)
BAD_CALLS = {
    "query list": (TypeError, "query", lambda: pk.matching_scores([1], R, Y, 2)),
    "query int": (TypeError, "query.*int64", lambda: pk.matching_scores(Q.long(), R, Y, 2)),
    "query rank": (
        ValueError,
        r"query.*\[B, D, H, W\]",
        lambda: pk.matching_scores(Q[0, 0], R, Y, 2),
    ),
    "reference dtype": (
        TypeError,
        "reference.*float32.*float64",
        lambda: pk.label_transfer(Q, R.double(), Y, 2),
    ),
    "reference device": (
        ValueError,
        "reference.*device",
        lambda: pk.label_transfer(Q, R.to("meta"), Y, 2),
    ),
    "reference channels": (
        ValueError,
        r"reference.*\[2, 3\].*\[2, 2\]",
        lambda: pk.label_transfer(Q, R[:, :2], Y, 2),
    ),
    "labels float": (TypeError, "labels", lambda: pk.label_transfer(Q, R, Y.float(), 2)),
    "labels size": (ValueError, r"labels.*\[2, 7\]", lambda: pk.label_transfer(Q, R, Y[:, 1:], 2)),
    "classes zero": (ValueError, "num_classes.*0", lambda: pk.label_transfer(Q, R, Y, 0)),
    "metric": (
        ValueError,
        "metric.*'l2'",
        lambda: pk.matching_scores(Q, R, Y, 2, metric="l2"),
    ),
    "transform": (
        ValueError,
        "transform.*'tanh'",
        lambda: pk.matching_scores(Q, R, Y, 2, transform="tanh"),
    ),
    "reduce": (ValueError, "reduce.*'all'", lambda: pk.matching_scores(Q, R, Y, 2, reduce="all")),
    "k missing": (ValueError, "k.*None", lambda: pk.matching_scores(Q, R, Y, 2, reduce="topk")),
    "k unused": (ValueError, "k.*3", lambda: pk.matching_scores(Q, R, Y, 2, k=3)),
    "k zero": (
        ValueError,
        "k.*at least 1",
        lambda: pk.matching_scores(Q, R, Y, 2, reduce="topk", k=0),
    ),
    "scale text": (TypeError, "scale", lambda: pk.matching_scores(Q, R, Y, 2, scale="1")),
    "scale vector": (
        ValueError,
        r"scale.*0-d.*\[2\]",
        lambda: pk.matching_scores(Q, R, Y, 2, scale=torch.ones(2)),
    ),
    "shift device": (
        ValueError,
        "shift.*device",
        lambda: pk.matching_scores(Q, R, Y, 2, shift=torch.ones((), device="meta")),
    ),
    "backend": (
        pk.BackendUnavailable,
        "no cuda implementation",
        lambda: pk.matching_scores(Q, R, Y, 2, backend="cuda"),
    ),
    "sample labels": (
        ValueError,
        r"labels.*\[2, 4, 5\]",
        lambda: pk.sample_reference(Q, Y, 2, 3),
    ),
    "sample none": (
        ValueError,
        "num_per_class.*0",
        lambda: pk.sample_reference(Q, Q[:, 0].long(), 2, 0),
    ),
    "support channels": (ValueError, "support", lambda: pk.prior_mask(Q, S[:, :2], W)),
    "support list": (TypeError, "support", lambda: pk.prior_mask(Q, [S], W)),
    "support dtype": (TypeError, "support", lambda: pk.prior_mask(Q, S.half(), W)),
    "weights int": (TypeError, "weights.*int64", lambda: pk.prior_mask(Q, S, W.long())),
    "weights shots": (
        ValueError,
        r"weights.*\[2, 3, 'H', 'W'\]",
        lambda: pk.prior_mask(Q, S[:, None].expand(2, 3, 3, 6, 5), W),
    ),
    "weights negative": (ValueError, "weights.*-1", lambda: pk.prior_mask(Q, S, -W)),
    "weights empty": (
        ValueError,
        r"weights.*got \[0, 3\]",
        lambda: pk.prior_mask(Q, S, W[:, :0, :3]),
    ),
    "no shots": (
        ValueError,
        "at least one shot",
        lambda: pk.prior_mask(Q, S[:, None][:, :0], W[:, None][:, :0]),
    ),
    "prior eps": (ValueError, "eps", lambda: pk.prior_mask(Q, S, W, eps=-1)),
    "prior reduce": (ValueError, "reduce.*'mean'", lambda: pk.prior_mask(Q, S, W, reduce="mean")),
    "prior normalize": (
        ValueError,
        "normalize.*'l2'",
        lambda: pk.prior_mask(Q, S, W, normalize="l2"),
    ),
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_names_the_argument(call):
    error, message, run = call
    with pytest.raises(error, match=message):
        run()
