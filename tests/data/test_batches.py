"""Memory of batches, and filling it from several threads."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from jaxvision.data import batches
from jaxvision.errors import UserError


def record(number: int, size: int = 4) -> dict:
    image = np.full((size, size, 3), number, np.uint8)
    return {"image": image, "label": np.int32(number), "valid": np.True_}


@pytest.mark.parametrize("shape", [(), (0, 3), (64, 5, 5, 3), (7,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.bool_])
def test_memory_is_aligned(shape, dtype):
    array = batches.empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.ctypes.data % 64 == 0 or array.size == 0
    array[...] = 1
    assert array.all()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="others have memory of their own")
def test_devices_on_cpus_take_it_over():
    array = batches.empty((2, 64, 64, 3), np.uint8)
    array[...] = 7
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    there = jax.device_put({"image": array}, device)["image"]
    assert there.unsafe_buffer_pointer() == array.ctypes.data


def test_stack_is_what_numpy_stacks():
    records = [record(number) for number in range(5)]
    batch = batches.stack(records)
    for key in records[0]:
        np.testing.assert_array_equal(batch[key], np.stack([r[key] for r in records]))
        assert batch[key].dtype == records[0][key].dtype


def test_rows_of_differing_size_are_refused():
    with pytest.raises(UserError, match=r"\(4x4 and 5x5\)"):
        batches.stack([record(0), record(1, size=5)])


def test_threads_fill_batches_together():
    filling = batches.Filling(8)
    with ThreadPoolExecutor(4) as threads:
        places = [(number, row) for row in range(8) for number in range(16)]
        list(threads.map(lambda place: filling.put(*place, record(sum(place))), places))
    for number in range(16):
        np.testing.assert_array_equal(filling.take(number)["label"], number + np.arange(8))
    with pytest.raises(KeyError):
        filling.take(0)
