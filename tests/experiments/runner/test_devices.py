"""The number of devices for a batch."""

import jax
import pytest

from experiments.runner import devices
from experiments.schema import UserError


@pytest.mark.parametrize(("number", "most", "expected"), [(64, 2, 2), (9, 2, 1), (12, 8, 6), (7, 8, 7), (1, 4, 1)])
def test_largest_divisor(number, most, expected):
    assert devices.largest_divisor(number, most) == expected


def test_mesh_uses_as_many_devices_as_divide_the_batch():
    assert len(jax.devices()) == 8
    assert devices.make_mesh(12).size == 6
    assert devices.make_mesh(12, 3).size == 3


@pytest.mark.parametrize(
    ("batch_size", "count", "model_parallel", "expected"),
    [
        (12, None, 1, 4),  # four cores divide the batch
        (9, None, 1, 3),
        (12, 6, 1, 6),  # an explicit count may exceed the cores
        (4, 9, 1, 4),  # at most one device per row
        (12, None, 2, 4),  # 2 x 2
        (1, None, 2, 2),
    ],
)
def test_cpu_devices_default_to_cores_that_divide_the_batch(batch_size, count, model_parallel, expected, monkeypatch):
    requested = []
    monkeypatch.setattr(devices, "available_cores", lambda: 4)
    monkeypatch.setattr(jax.config, "update", lambda *setting: requested.append(setting))
    devices.request_cpu_devices(batch_size, count, model_parallel)
    assert requested == [("jax_num_cpu_devices", expected)]


@pytest.mark.parametrize(
    ("count", "message"), [(9, "from 1 to 8"), (5, "divides the batch size 12"), (0, "from 1 to 8")]
)
def test_invalid_device_counts_raise(count, message):
    with pytest.raises(UserError, match=message):
        devices.make_mesh(12, count)
