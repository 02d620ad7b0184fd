"""How many devices a batch is spread over."""

import jax
import pytest

from experiments.training import devices


@pytest.mark.parametrize(("number", "most", "expected"), [(64, 2, 2), (9, 2, 1), (12, 8, 6), (7, 8, 7), (1, 4, 1)])
def test_largest_divisor(number, most, expected):
    assert devices.largest_divisor(number, most) == expected


def test_takes_as_many_devices_as_divide_the_batch():
    assert len(jax.devices()) == 8
    assert devices.make_mesh(12).size == 6
    assert devices.make_mesh(12, 3).size == 3


@pytest.mark.parametrize(
    ("count", "message"), [(9, "from 1 to 8"), (5, "divides the batch size 12"), (0, "from 1 to 8")]
)
def test_refuses_what_cannot_be(count, message):
    with pytest.raises(devices.DeviceError, match=message):
        devices.make_mesh(12, count)
