"""Errors in the Triton kernels."""

from __future__ import annotations

from . import Mutant

REGIONS = "pixelkernels/regions/triton"
DISTANCE = "pixelkernels/distance/triton"
SIMILARITY = "pixelkernels/similarity/triton"
HINGES = "pixelkernels/triplet/triton/hinges.py"
COMMON = "pixelkernels/_core/triton.py"

MUTANTS = [
    Mutant("barrier dropped", f"{REGIONS}/statistics.py", "tl.debug_barrier()", "pass"),
    Mutant("barrier dropped", f"{DISTANCE}/transform.py", "tl.debug_barrier()", "pass"),
    Mutant("bound off by one", COMMON, "c[None, :] < channels", "c[None, :] <= channels"),
    Mutant("uninitialised table", f"{REGIONS}/statistics.py", "tl.store(counts + lane, tl.zeros([P], tl.int32), mask=lane < num_regions)", "pass"),
    Mutant("bound off by one", f"{REGIONS}/statistics.py", "inside = begin + tl.arange(0, P) < end", "inside = begin + tl.arange(0, P) <= end"),
    Mutant("tail unmasked", f"{REGIONS}/statistics.py", "tl.store(mean + program * channels + c, reference + offset, mask=c < channels)", "tl.store(mean + program * channels + c, reference + offset)"),
    Mutant("bound off by one", f"{REGIONS}/gradients.py", "inside = pixel < pixels", "inside = pixel <= pixels"),
    Mutant("weight of 0", f"{REGIONS}/weighted.py", 'tl.where((w == 0) & ~(tl.abs(acc) < float("inf")), 0.0, acc)', "tl.where(w == 0, 0.0, acc)"),
    Mutant("weight of 0", f"{REGIONS}/weighted.py", 'tl.where((w == 0) & ~(tl.abs(acc) < float("inf")), 0.0, acc)', "acc"),
    Mutant("bound off by one", f"{DISTANCE}/columns.py", "inside = (row < height)", "inside = (row <= height)"),
    Mutant("tail unmasked", f"{DISTANCE}/transform.py", "mask=column <= last, other=-1", "mask=column < last + CHUNK, other=-1"),
    Mutant("last of equal ones", f"{DISTANCE}/transform.py", "(q < argmin)", "(q > argmin)"),
    Mutant("absent site", f"{DISTANCE}/nearest.py", "mask=found, other=-1", "mask=inside, other=-1"),
    Mutant("bound off by one", f"{DISTANCE}/layout.py", "(row < height)", "(row <= height)"),
    Mutant("bound off by one", f"{DISTANCE}/transform.py", "best, mask=x < width", "best, mask=x <= width"),
    Mutant("bound off by one", f"{DISTANCE}/transform.py", "x - change + 1", "x - change"),
    Mutant("barrier dropped", f"{DISTANCE}/transform.py", "tl.debug_barrier()", "pass", 1),
    Mutant("wrong stride", f"{DISTANCE}/labels.py", "(line - height) * width", "(line - depth) * width"),
    Mutant("tail unmasked", f"{DISTANCE}/nearest.py", "(earlier >> BITS).to(tl.int64) * inner", "(earlier >> BITS) * outer"),
    Mutant("tail unmasked", f"{DISTANCE}/transform.py", "mask=i + 1 < blocks, other=width - 1", "mask=i < blocks, other=width - 1"),
    Mutant("tail unmasked", f"{DISTANCE}/clicks.py", "mask=(row < height) & (column < width)", "mask=row < height"),
    Mutant("bound off by one", f"{DISTANCE}/clicks.py", "mask=at < clicks", "mask=at <= clicks"),
    Mutant("bound off by one", HINGES, "valid &= (pixel >= 0) & (pixel < pixels)", "valid &= (pixel >= 0) & (pixel <= pixels)"),
    Mutant("tail unmasked", HINGES, "tl.store(hinges + to, hinge_value, mask=row < rows)", "tl.store(hinges + to, hinge_value)"),
    Mutant("race", HINGES, "head = (pixel < pixels) & (before != key)", "head = pixel < pixels"),
    Mutant("wrong stride", HINGES, "other=0) - image * count", "other=0)"),
    Mutant("bound off by one", HINGES, "other=first_key + pixels)", "other=first_key)"),
    Mutant("int32 offsets", HINGES, "if batch * (pixels + 1) < 2**31:", "if True:"),
    Mutant("bound off by one", f"{SIMILARITY}/points.py", "inside = pixel < pixels", "inside = pixel <= pixels"),
    Mutant("bound off by one", f"{SIMILARITY}/points.py", "known = j < end", "known = j <= end"),
    Mutant("wrong stride", f"{SIMILARITY}/points.py", "[:, None] * padded(channels) + c[None, :]", "[:, None] * channels + c[None, :]"),
    Mutant("bound off by one", f"{SIMILARITY}/_common.py", "known = j < end", "known = j <= end"),
    Mutant("tail unmasked", f"{SIMILARITY}/scores.py", "tl.store(edge + image * pixels + pixel, log_sum, mask=inside)", "tl.store(edge + image * pixels + pixel, log_sum)"),
    Mutant("tail unmasked", f"{SIMILARITY}/prior.py", "tl.store(scores + image * pixels + pixel, of_key(best), mask=inside)", "tl.store(scores + image * pixels + pixel, of_key(best))"),
    Mutant("race", f"{SIMILARITY}/gradient.py", "tl.store(scalars + slot * 2, tl.sum(by_scale, axis=0), mask=chunk == 0)", "tl.store(scalars, tl.sum(by_scale, axis=0), mask=chunk == 0)"),
    Mutant("bound off by one", f"{SIMILARITY}/pairs.py", "exists = pixel < pixels", "exists = pixel <= pixels"),
    Mutant("last of equal ones", f"{SIMILARITY}/mutual.py", "tl.where(most > highest, first, argbest)", "tl.where(most >= highest, first, argbest)"),
    Mutant("part left out", f"{SIMILARITY}/mutual.py", "begin = (slot // batch).to(tl.int32) * step", "begin = (slot // batch).to(tl.int32) * (step + BLOCK_K)"),
    Mutant("tail unmasked", f"{SIMILARITY}/mutual.py", "tl.minimum(begin + step, last)", "begin + step"),
    Mutant("tail unmasked", f"{SIMILARITY}/mutual.py", "tl.where(inside[:, None] & known[None, :], slope, 0.0)", "tl.where(known[None, :], slope, 0.0)"),
    Mutant("bound off by one", f"{SIMILARITY}/contrast.py", "known = j < last", "known = j <= last"),
    Mutant("part left out", f"{SIMILARITY}/contrast.py", "skipped = tl.maximum((tl.minimum(all_end, last) - begin) // BLOCK_K - before, 0)", "skipped = tl.maximum((tl.minimum(all_end, last) - begin) // BLOCK_K - before + 1, 0)"),
    Mutant("tail unmasked", f"{SIMILARITY}/contrast.py", "acc = tl.where(known[:, None], acc, 0.0)", "pass"),
    Mutant("race", f"{SIMILARITY}/contrast.py", "tl.store(second + to, total, mask=exists & (chunk == 0))", "tl.store(second + i, total, mask=exists & (chunk == 0))"),
    Mutant("int32 offsets", COMMON, "c[None, :].to(tl.int64) * stride_c", "(c[None, :] * stride_c).to(tl.int32)"),
]  # fmt: skip
