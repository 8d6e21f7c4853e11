"""Programs exported, saved and loaded give the same bits; packages of AOTInductor load."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.export import Dim

import pixelkernels as pk
from pixelkernels.testing import inputs
from pixelkernels.testing.arguments import TensorKind
from pixelkernels.testing.op import named_outputs
from tests.helpers import assert_same, first_quick, run_python, sampled
from tests.promises.test_operators import seeded


class Around(nn.Module):
    """A function with its options, as a module of a user has them."""

    def __init__(self, function, options):
        super().__init__()
        self.function, self.options = function, options

    def forward(self, tensors):
        return self.function(**tensors, **self.options)


def saved(program):
    """The program, written and read again."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


# a program is for weights of the support's size, or for those that are resized
EQUAL = {"X": "P", "Y": "Q"}
# on eager the distance transform is a loop over the rows, and over the columns
LOOPS = (
    *("distance_transform", "signed_distance", "boundary_loss", "hausdorff_loss"),
    *("expand_labels", "next_click", "simulate_clicks"),
)


def dynamic_letters(call, backend):
    """Those of the shapes that a program may leave open."""
    looped = "HW" if backend == "eager" and call.op.name in LOOPS else ""
    return {x for x in call.letters if not x.isdigit() and x not in looped}


def dynamic_shapes(call, letters):
    """A symbol for every letter."""
    kinds = {name: call.op.kind(call.case, name) for name in call.tensors}
    return {
        name: {i: Dim(EQUAL.get(x, x)) for i, x in enumerate(kind.shape) if x in letters}
        for name, kind in kinds.items()
        if isinstance(kind, TensorKind)
    }


def of_first_case(op, case):
    return op.compiles and case is op.cases[op.quick_cases[0]]


def check_saved(sample, backend, dynamic):
    """Results and gradients, at other sizes as well if the program is dynamic."""
    tiny, small = sample.op.sizes.tiny, sample.op.sizes.small[0]
    call = sample.call(tiny)
    options = {name: x for name, x in call.arguments.items() if name not in call.tensors}
    module = Around(call.function, {**options, "backend": backend})
    letters = dynamic_letters(call, backend)
    shapes = {"tensors": dynamic_shapes(call, letters)} if dynamic else None
    learned = {name: x.clone().requires_grad_() for name, x in call.differentiable.items()}
    tensors = {**call.tensors, **learned}
    program = saved(torch.export.export(module, (tensors,), dynamic_shapes=shapes)).module()

    def results(one):
        with seeded():
            return one.results(backend, **{"generator": None} if sample.op.draws else {})

    other = {**tiny, **{letter: small[EQUAL.get(letter, letter)] for letter in letters}}
    for dims in (tiny, other)[: 1 + dynamic]:
        one = sample.call(dims)
        loaded = one.through(lambda **given: program({name: given[name] for name in tensors}))
        assert_same(results(loaded), results(one))


@pytest.mark.parametrize("dynamic", first_quick(True, False))
@sampled("cpu", when=of_first_case)
def test_saved_functions_give_the_same_bits(sample, backend, dynamic):
    check_saved(sample, backend, dynamic)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [True, False])
@sampled("eager", when=of_first_case)
def test_saved_functions_on_eager_give_the_same_bits(sample, backend, dynamic):
    check_saved(sample, backend, dynamic)


@sampled("cpu", when=lambda op, case: op.module and of_first_case(op, case))
def test_saved_modules_give_the_same_bits(sample, backend):
    call = sample.call()
    required, options = call.op.split(call.arguments)
    module = call.op.module(**options, backend=backend)
    program = saved(torch.export.export(module, tuple(required.values()))).module()
    with seeded():
        expected = module(*required.values())
    with seeded():
        found = program(*required.values())
    assert type(found) is type(expected)
    assert_same(named_outputs(found), named_outputs(expected))


def test_saved_loss_with_running_statistics_updates_them():
    x, y = (inputs.features(2, 5, 4, 6, seed=seed) for seed in (0, 1))
    labels = inputs.random_labels(2, 4, 6, high=3)
    loss = pk.SiameseSimilarityLoss()
    program = saved(torch.export.export(loss, (x, y, labels, labels))).module()
    for _ in range(2):
        assert torch.equal(program(x, y, labels, labels), loss(x, y, labels, labels))
    assert_same(dict(program.named_buffers()), dict(loss.named_buffers()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coseg", "menet", "cas", "transfer", "interactive"])
def test_saved_networks_give_the_same_bits(name, caplog):
    from tests.models import test_models as networks  # skips without their requirements

    network = networks.small(name).eval()
    images, masks = networks.scene()
    arguments = (images if name == "coseg" else images[:, 0],)
    if name == "interactive":
        support = networks.Support(images[:, 1:], masks[:, 1:])
        arguments = (*arguments, networks.clicks_on(masks[:, 0]), support)
    program = saved(torch.export.export(network, arguments)).module()
    assert "Fallback" not in caplog.text  # to pickles that can run code
    with torch.no_grad():
        found, expected = program(*arguments), network(*arguments)
    assert type(found) is type(expected)
    assert_same(named_outputs(found), named_outputs(expected))


class Click(nn.Module):
    """Masks of both kinds: bool, and an integer one that an operator in Python checks."""

    def forward(self, prediction, target):
        return pk.next_click(prediction, target), pk.next_click(prediction, target.long())


class Losses(nn.Module):
    def __init__(self):
        super().__init__()
        self.regions, self.triplets = pk.CASLoss(), pk.ISTripletLoss(num_samples=7)

    def forward(self, features, labels):
        return self.regions(features, labels, 3), self.triplets(features, labels == 1)


class Transfer(nn.Module):
    def __init__(self):
        super().__init__()
        self.transfer = pk.LabelTransfer(metric="cosine", reduce="topk", k=3)

    def forward(self, features, labels):
        return self.transfer(features, features.flip(0), labels.flip(0), 3)


FEATURES, LABELS = inputs.features(2, 5, 6, 7), inputs.coherent_labels(2, 6, 7, 3)
PACKAGES = {
    "click": (Click(), (LABELS == 0, LABELS == 1)),
    "losses": (Losses(), (FEATURES, LABELS)),
    "transfer": (Transfer(), (FEATURES, LABELS)),
}
# torch 2.10 does not import the codecache that it loads with
LOAD = """
import torch._inductor.codecache
{imports}
arguments, expected = torch.load("case.pt")
run = torch._inductor.aoti_load_package("package.pt2")
torch.manual_seed(0)
found = torch.utils._pytree.tree_leaves(run(*arguments))
torch.testing.assert_close(found, expected)
"""


@pytest.mark.slow
@pytest.mark.inductor
@pytest.mark.parametrize("name", PACKAGES)
def test_packages_of_aotinductor_load_after_the_import(name, tmp_path):
    module, arguments = PACKAGES[name]
    program = torch.export.export(module, arguments)
    torch._inductor.aoti_compile_and_package(
        program,
        package_path=str(tmp_path / "package.pt2"),
        # the random numbers of uncompiled torch
        inductor_configs={"fallback_random": True},
    )
    with seeded():
        expected = torch.utils._pytree.tree_leaves(module(*arguments))
    torch.save((arguments, expected), tmp_path / "case.pt")
    run_python(LOAD.format(imports="import pixelkernels"), tmp_path, timeout=300)
    with pytest.raises(AssertionError, match="Could not find schema for pixelkernels::"):
        run_python(LOAD.format(imports=""), tmp_path, timeout=300)
