import random

import numpy as np
import pytest
import torch

from utils import torch_utils
from utils.errors import InputError
from utils.torch_utils import (
    Timer,
    amp_dtype,
    random_states,
    seed_everything,
    select_device,
    set_random_states,
    supports_bf16_cpu,
    to_channels_last_,
    to_unit_float,
)


@pytest.fixture
def two_gpus(monkeypatch):
    class Properties:
        name, total_memory = "Test GPU", 8 << 30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def restored_determinism():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("device", ["", "cpu", "CPU", "None"])
def test_without_a_gpu_it_is_the_cpu(device, no_gpu):
    assert select_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["0", "cuda:0", "cuda", "0,1", "mps", "tpu", "-1", "0,,x", ","])
def test_what_is_not_there_is_refused(device, no_gpu):
    with pytest.raises(InputError, match="--device"):
        select_device(device)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("", "cuda:0"), ("0", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("1", "cuda:1"), ("cpu", "cpu")],
)
def test_cuda_devices(device, expected, two_gpus, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert select_device(device) == torch.device(expected)
    assert "CUDA_VISIBLE_DEVICES" not in torch_utils.os.environ


@pytest.mark.parametrize("device", ["2", "0,2", "0,0"])
def test_cuda_devices_that_are_not_there(device, two_gpus):
    with pytest.raises(InputError, match="--device"):
        select_device(device)


@pytest.mark.parametrize(
    ("device", "process", "expected"),
    [
        ("", 0, "cuda:0"),
        ("", 1, "cuda:1"),
        ("1,0", 0, "cuda:1"),
        ("1,0", 1, "cuda:0"),
        ("1", 0, "cuda:1"),
        ("cpu", 1, "cpu"),
    ],
)
def test_each_process_takes_a_device_of_its_own(device, process, expected, two_gpus):
    assert select_device(device, process=process) == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "process", "message"),
    [("0,1", None, "--nproc_per_node 2 train.py"), ("", 2, "none of the 2"), ("0", 1, "none of the 1")],
)
def test_devices_and_processes_must_fit(device, process, message, two_gpus):
    with pytest.raises(InputError, match=message):
        select_device(device, process=process)


def test_random_states_come_back():
    def draws() -> tuple:
        numpys = np.random.standard_normal(2)  # noqa: NPY002  (the global generator is what is tested)
        return random.random(), numpys.tolist(), torch.rand(2).tolist()

    kept = random_states(torch.device("cpu"))
    drawn = draws()
    set_random_states(kept)
    assert draws() == drawn


def test_seeds_repeat(restored_determinism):
    def draws() -> tuple:
        seed_everything(3, deterministic=True)
        return random.random(), torch.rand(3).tolist()

    assert draws() == draws()
    assert torch.are_deterministic_algorithms_enabled()
    seed_everything(3, deterministic=False)
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("", False), ("avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16", True), ("myavx512_bf16", False)],
)
def test_bf16_by_cpu_flags(flags, expected, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(torch_utils, "Path", lambda _: tmp_path / "cpuinfo")
    assert supports_bf16_cpu.__wrapped__() is expected


def test_bf16_where_there_is_no_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_utils, "Path", lambda _: tmp_path / "none")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert supports_bf16_cpu.__wrapped__() is True


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [("cuda", False, torch.float16), ("cpu", True, torch.bfloat16), ("cpu", False, None), ("mps", True, None)],
)
def test_amp_dtype(device, bf16, expected, monkeypatch):
    monkeypatch.setattr(torch_utils, "supports_bf16_cpu", lambda: bf16)
    assert amp_dtype(torch.device(device)) == expected


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 1, 1), (2, 3, 5, 4)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_to_unit_float(shape, channels_last):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    floats = to_unit_float(images, torch.device("cpu"), channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.testing.assert_close(floats.contiguous(), images.float() / 255, rtol=0, atol=0)
    assert floats.is_contiguous(memory_format=layout)
    assert images.dtype == torch.uint8


def test_timer_adds_up(monkeypatch):
    clock = iter([1.0, 1.5, 2.0, 4.0])
    monkeypatch.setattr(torch_utils, "time_sync", lambda _: next(clock))
    timer = Timer(torch.device("cpu"))
    for expected in (0.5, 2.0):
        with timer:
            pass
        assert timer.last == expected
    assert timer.seconds == 2.5


def test_channels_last_weights():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(2, 2))
    model.register_parameter("kernels", torch.nn.Parameter(torch.rand(2, 4, 3, 3, 3)))  # a dynamic layer's
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert to_channels_last_(model) is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model.kernels.is_contiguous()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
