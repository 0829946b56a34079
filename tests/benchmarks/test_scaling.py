"""What the compiled program is counted to exchange, against what it must."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# A loop of three turns around a pair that counts once; a fusion that takes a slice of what an
# all-reduce gives, and an all-reduce that is used whole.
HLO = """HloModule step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%body (p: (s32[], f32[64,1024])) -> (s32[], f32[64,1024]) {
  %p = (s32[], /*index=1*/f32[64,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[64,1024]{1,0} get-tuple-element(%p), index=1
  %shard = f32[32,1024]{1,0} slice(%x), slice={[0:32], [0:1024]}
  %gs = (f32[32,1024]{1,0}, f32[64,1024]{1,0}) all-gather-start(%shard), dimensions={0}
  %gd = f32[64,1024]{1,0} all-gather-done(%gs)
  ROOT %next = (s32[], f32[64,1024]{1,0}) tuple(%i, %gd)
}

%condition (q: (s32[], f32[64,1024])) -> pred[] {
  %q = (s32[], f32[64,1024]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%take (r: f32[64,1024], at: s32[]) -> f32[32,1024] {
  %r = f32[64,1024]{1,0} parameter(0)
  %at = s32[] parameter(1)
  ROOT %taken = f32[32,1024]{1,0} dynamic-slice(%r, %at, %at), dynamic_slice_sizes={32,1024}
}

ENTRY %main (x.1: (s32[], f32[64,1024]), y: bf16[8]) -> f32[32,1024] {
  %x.1 = (s32[], f32[64,1024]{1,0}) parameter(0)
  %y = bf16[8]{0} parameter(1)
  %loop = (s32[], f32[64,1024]{1,0}) while(%x.1), condition=%condition, body=%body, TRIPS
  %j = s32[] get-tuple-element(%loop), index=0
  %z = f32[64,1024]{1,0} get-tuple-element(%loop), index=1
  %reduced = (f32[64,1024]{1,0}, bf16[8]{0}) all-reduce(%z, %y), to_apply=%sum
  %whole = bf16[8]{0} get-tuple-element(%reduced), index=1
  %also = bf16[8]{0} all-reduce(%whole), to_apply=%sum
  %gradient = f32[64,1024]{1,0} get-tuple-element(%reduced), index=0
  ROOT %out = f32[32,1024]{1,0} fusion(%gradient, %j), kind=kLoop, calls=%take
}
"""

STEPS = """
import json
import scaling
scaling.use_virtual_devices()
rows = [scaling.compile_step("resnet8_cifar", split, devices, 32, 32)
        for split, devices in (("data", 1), ("data", 2), ("fsdp", 2))]
print(json.dumps(rows))
"""


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("scaling")


@pytest.fixture(scope="module")
def rows():
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_loops_pairs_and_slices_are_counted(scaling):
    text = HLO.replace("TRIPS", 'backend_config={"known_trip_count":{"n":"3"}}')
    array = 4 * 64 * 1024
    assert scaling.exchanges(scaling.parse(text)) == {
        "all-reduce": {"count": 0, "bytes": 16, "small": 1, "small_bytes": 16},
        "reduce-scatter": {"count": 1, "bytes": array, "small": 0, "small_bytes": 0},
        "all-gather": {"count": 3, "bytes": 3 * array, "small": 0, "small_bytes": 0},
    }


def test_a_loop_of_unknown_length_with_collectives_is_refused(scaling):
    with pytest.raises(ValueError, match="How often does %loop run"):
        scaling.exchanges(scaling.parse(HLO.replace(", TRIPS", "")))


@pytest.mark.slow
def test_data_parallel_exchanges_gradients_and_statistics_alone(rows, scaling):
    alone, data, _ = rows
    assert alone["exchanges"] == {}
    assert list(data["exchanges"]) == ["all-reduce"]
    # Beside them: sums of the loss and the metrics, scalars of four bytes.
    scalars = scaling.total(data, "bytes", "small_bytes") - scaling.ideal(data)
    assert 0 < scalars <= 8 * 4
    # Two of each normalisation in the forward pass, one in the backward pass; merged where
    # neither waits for the other.
    layers = 9
    assert 2 * layers <= scaling.total(data, "small") <= 3 * layers + 1
    assert data["exchanges"]["all-reduce"]["count"] == 1


@pytest.mark.slow
def test_fully_sharded_gathers_parameters_and_scatters_gradients(rows, scaling):
    found = rows[2]["exchanges"]
    kernels = found["reduce-scatter"]["bytes"] + found["reduce-scatter"]["small_bytes"]
    assert 0.95 < kernels / rows[2]["parameter_bytes"] < 1
    gathered = found["all-gather"]["bytes"] + found["all-gather"]["small_bytes"]
    # 3x3 kernels once more, reversed, for the gradient of the input.
    assert kernels <= gathered < 2 * rows[2]["parameter_bytes"]


@pytest.mark.slow
def test_nothing_is_computed_twice(rows):
    alone, *shared = rows
    for row in shared:
        assert row["flops"] / alone["flops"] == pytest.approx(1 / row["devices"], rel=0.05)


def test_predictions_follow_the_formulas(scaling):
    gpus, megabyte = scaling.ACCELERATORS["DGX H100"], 2**20
    latency, transfer = gpus.seconds(2, 1, megabyte, 8)
    assert latency == pytest.approx(4.4e-6 + 2 * 7 * 0.52e-6)
    assert transfer == pytest.approx(2 * 7 / 8 * megabyte / 450e9)
    latency, transfer = gpus.seconds(2, 1, megabyte, 64)
    assert latency == pytest.approx(4.4e-6 + 2 * (7 * 0.52e-6 + 3 * 5e-6))
    assert transfer == pytest.approx(2 * 7 / 8 * megabyte * (1 / 450e9 + 1 / 8 / 50e9))
    latency, transfer = scaling.ACCELERATORS["TPU v5p"].seconds(1, 3, megabyte, 64)
    assert latency == pytest.approx(3 * 6e-6)
    assert transfer == pytest.approx(63 / 64 * megabyte / 600e9)


@pytest.mark.slow
def test_the_page_has_a_line_for_each_program(rows, scaling):
    page = scaling.markdown({"rows": rows})
    for split in ("data", "fsdp"):
        assert re.search(rf"\| resnet8_cifar \| {split} \| 2 \| (0\.99|1\.00)", page)
        assert f"| resnet8_cifar, {split} | TPU v5e | " in page
