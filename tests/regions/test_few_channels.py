"""Numbers of channels that do not fill a vector, with many regions."""

import pytest
import torch

from pixelkernels.testing.arguments import How
from pixelkernels.testing.samples import OPS, regions

OPERATIONS = [op.name for op in regions.OPS if op.differentiable]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped"])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 9])
@pytest.mark.parametrize("name", OPERATIONS)
def test_few_channels_agree_with_eager(name, channels, layout):
    sizes = {"B": 2, "C": channels, "H": 13, "W": 23, "R": 9, "X": 20, "Y": 31}
    call = OPS[name].call(OPS[name].quick_cases[0], How(sizes, torch.float64, layout=layout))
    expected = call.results("eager")
    for title, value in call.results("cpu").items():
        torch.testing.assert_close(value, expected[title], rtol=1e-9, atol=1e-11, msg=title)
