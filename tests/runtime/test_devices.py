"""The devices of a training, and the compilation cache."""

import os

import jax
import pytest

from deep_emotion_jax.errors import UserError
from deep_emotion_jax.nn.backend import platform
from deep_emotion_jax.runtime.devices import (
    choose_devices,
    data_mesh,
    fits,
    use_compilation_cache,
)


def test_all_devices_or_the_requested_number():
    assert choose_devices() == choose_devices("cpu") == jax.devices()
    assert choose_devices("auto", 1) == jax.devices()[:1]
    assert data_mesh(choose_devices("auto", 1)).size == 1


@pytest.mark.parametrize("missing", ["gpu", "tpu"])
def test_a_missing_accelerator_is_one_message(missing):
    with pytest.raises(UserError, match=rf"no {missing} for .*JAX finds 'cpu' \(2 x cpu\)"):
        choose_devices(missing)


def test_an_unknown_name_is_one_escaped_message():
    with pytest.raises(UserError, match=r"one of .*'auto', 'cpu'.*got '\\x1b\[2Jnpu'"):
        choose_devices("\x1b[2Jnpu")


def test_too_many_devices():
    with pytest.raises(UserError, match=r"config\.num_devices=3 is more than the 2 x cpu"):
        choose_devices("cpu", 3)


class Device:
    """A stand-in for a device that this machine lacks."""

    def __init__(self, platform, process=0):
        self.platform = self.device_kind = platform
        self.process_index = process


@pytest.fixture
def config(monkeypatch):
    """Records updates of JAX's settings instead of applying them."""
    written = {}
    monkeypatch.setattr(jax.config, "update", written.__setitem__)
    return written


def test_choosing_the_cpu_makes_it_the_default_device(monkeypatch, config):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_devices("cpu") == jax.devices("cpu")
    assert config == {"jax_default_device": jax.devices("cpu")[0]}
    with jax.default_device(jax.devices("cpu")[0]):
        assert platform() == "cpu"
    assert platform() == "gpu"


def test_the_number_of_devices_is_per_process(monkeypatch, config):
    there = [Device("gpu", process) for process in (0, 1, 0, 1, 1, 0)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda platform=None: there)
    monkeypatch.setattr(jax, "local_devices", lambda backend=None: there[:3])
    assert choose_devices("gpu", 2) == there[:4]
    assert config == {}


@pytest.mark.parametrize(
    ("size", "memory", "fit"), [(40, 100, True), (41, 100, False), (41, None, True)]
)
def test_what_fits_on_a_device(monkeypatch, size, memory, fit):
    device = Device("gpu")
    device.memory_stats = lambda: memory and {"bytes_limit": memory}
    assert fits(size, [Device("gpu", 1), device]) == fit
    monkeypatch.setattr(os, "sysconf", lambda name: 12)  # 12 pages of 12 bytes
    assert fits(24, [device])
    assert not fits(25, [device])


def test_the_cache_is_in_a_folder_of_the_user(monkeypatch, config, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    use_compilation_cache()
    assert config == {}  # JAX reads the variable itself
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "__version_info__", (0, 9, 2))
    use_compilation_cache()
    assert config == {}  # its CPU logs errors when it reads a cache
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 0))
    use_compilation_cache()
    assert config == {
        "jax_compilation_cache_dir": str(tmp_path / "deep-emotion-jax" / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }


def test_without_a_writable_home_there_is_no_cache(monkeypatch, config, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compilation_cache()
    assert config == {}
