"""Which backend serves a call: the order, the three ways to ask, the reasons."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch

import pixelkernels as pk
from pixelkernels import testing
from pixelkernels._core import dispatch, extension
from tests.helpers import first_quick, needs_gpu, run_python

F = testing.features(1, 3, 8, 9)
LABELS = testing.random_labels(1, 8, 9, high=3)


def chosen(backend=None, f=F) -> str:
    return dispatch.choose("region_stats", (f, LABELS), backend)


def test_cpu_tensors_take_the_compiled_kernels():
    assert chosen() == "cpu"
    assert "cpu" in pk.available_backends()
    assert "eager" in pk.available_backends()


def test_argument_beats_context_beats_environment(monkeypatch):
    monkeypatch.setattr(dispatch, "_from_environment", "eager")
    assert chosen() == "eager"
    with pk.use_backend("cpu"):
        assert chosen() == "cpu"
        assert chosen("eager") == "eager"
        with pk.use_backend(None):
            assert chosen() == "eager"
        assert chosen() == "cpu"
    assert chosen() == "eager"


def test_the_environment_is_read_at_import():
    code = "import pixelkernels as pk; print(pk._core.dispatch.requested(None))"
    assert run_python(code, PIXELKERNELS_BACKEND="eager").strip() == "eager"


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"backend: expected one of .*'fast'"):
        chosen("fast")
    with pytest.raises(ValueError, match=r"use_backend: .*'fast'"), pk.use_backend("fast"):
        pass
    monkeypatch.setattr(dispatch, "_from_environment", "fast")
    with pytest.raises(ValueError, match=r"PIXELKERNELS_BACKEND: .*'fast'"):
        chosen()


def test_asked_for_and_unusable_raises_with_the_reasons():
    with pytest.raises(
        pk.BackendUnavailable, match=r"region_stats on .*'cuda' cannot serve.*not a cuda device"
    ):
        pk.region_stats(F, LABELS, 3, backend="cuda")
    with pk.use_backend("triton"), pytest.raises(pk.BackendUnavailable, match="triton"):
        pk.cas_loss(F, LABELS, 3)
    with pytest.raises(pk.BackendUnavailable, match="compact_labels has no triton implementation"):
        pk.compact_labels(LABELS, backend="triton")
    assert issubclass(pk.BackendUnavailable, RuntimeError)


def test_falls_back_when_the_extension_did_not_load(monkeypatch, caplog):
    monkeypatch.setitem(dispatch.extension.REASONS, "cpu", "pixelkernels._C did not load: made up")
    dispatch._log_once.cache_clear()
    with caplog.at_level(logging.DEBUG, "pixelkernels"):
        assert [chosen() for _ in range(3)] == ["eager"] * 3
    assert [r.getMessage() for r in caplog.records].count(
        "region_stats: cpu is not used: pixelkernels._C did not load: made up"
    ) == 1
    assert "cpu" not in pk.available_backends()


def test_explain_prints_every_backend_and_the_choice(capsys):
    reasons = pk.explain("region_stats", F.double(), LABELS, 3)
    out = capsys.readouterr().out
    assert reasons["cpu"] == reasons["eager"] == []
    assert any("float64" in reason for reason in reasons["cuda"])
    assert "-> cpu" in out
    assert "device cpu is not a cuda device" in out
    with pytest.raises(ValueError, match="tensors"):
        pk.explain("region_stats")


def test_a_compiled_function_follows_the_backend_in_use():
    def stats(f, labels):
        return pk.region_stats(f, labels, 3).variance

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(stats, fullgraph=True, backend="aot_eager")
    for name in (None, "eager", "cpu", "eager", None):
        with pk.use_backend(name):
            assert dispatch.requested(None) == name
            torch.testing.assert_close(compiled(F, LABELS), stats(F, LABELS))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


def test_use_backend_inside_a_compiled_function():
    def stats(f, labels):
        with pk.use_backend("eager"):
            return pk.region_stats(f, labels, 3).variance

    torch._dynamo.reset()
    compiled = torch.compile(stats, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(F, LABELS), stats(F, LABELS))
    assert dispatch.requested(None) is None


@needs_gpu
def test_cuda_tensors_take_the_first_usable_backend():
    f, labels = F.cuda(), LABELS.cuda()
    usable = [
        b for b in dispatch.ORDER["cuda"] if not dispatch.why_not(b, "region_stats", (f, labels))
    ]
    assert dispatch.choose("region_stats", (f, labels), None) == usable[0]


@pytest.mark.parametrize("cases", first_quick(1, None), ids=["first case", "all cases"])
@pytest.mark.parametrize("capability", extension.BUILD["cpu_capabilities"].split())
def test_every_instruction_set_agrees_with_the_oracle(capability, cases):
    if capability == extension.BUILD["cpu_capability"]:
        pytest.skip("all other tests run on it")
    code = f"""
from pixelkernels._core import extension
from pixelkernels.testing.samples import OPS
from pixelkernels.testing.tolerances import assert_agrees
from tests.helpers import Sample
used = extension.BUILD["cpu_capability"]
for op in [op for op in OPS.values() if "cpu" in op.backends and used == "{capability}"]:
    for case in [case for case in op.cases if not op.cases[case].unstable][:{cases}]:
        assert_agrees(Sample(op, case).call(op.sizes.ordinary[-1]), "cpu")
print(used)
"""
    used = run_python(code, PIXELKERNELS_CPU_CAPABILITY=capability).strip()
    if used != capability:
        pytest.skip(f"this CPU has {used} at most")


def test_info_never_raises_and_says_what_is_there():
    both = "from pixelkernels.__main__ import main; main(['info', '--json']); main(['info'])"
    output = run_python(both)
    facts, end = json.JSONDecoder().raw_decode(output)
    assert set(facts) == {"versions", "machine", "devices", "build", "backends", "environment"}
    assert facts["backends"]["eager"] == []
    assert "baseline" in facts["build"]["cpu_capabilities"]
    assert "built_against_torch" in output[end:]
    broken = """
from pixelkernels._core import info, dispatch
dispatch.machine_reasons = lambda backend: 1 / 0
print(info.text(info.collect()))
"""
    assert "not found out: ZeroDivisionError" in run_python(broken)


@pytest.mark.parametrize("op", ["region_stat", np.ones(2)], ids=["text", "array"])
def test_explain_refuses_what_is_no_function(op):
    with pytest.raises(ValueError, match=r"^op: "):
        pk.explain(op, F, LABELS, 3)
