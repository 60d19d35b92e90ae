"""Settings to make before JAX starts, inherited by the commands of tests, and shared fixtures."""

import atexit
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # for the tests of data parallelism
# Most of the tests' time is spent compiling. It takes a third of the time without optimization and
# with the older emitters, for which JAX 0.12 has no flag.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
if version("jaxlib").startswith("0.9."):
    # It logs two errors of kilobytes for each program that it reads from the cache.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# One cache for the workers of pytest-xdist, which inherit the variable, and for the commands.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-cache-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

sys.path.insert(0, str(Path(__file__).parent))  # for commands.py

import pytest
from commands import run, train_arguments
from hypothesis import HealthCheck, settings

# A busy machine is no failure of a test.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")

# Deselected by `pytest -m "not slow"`: trainings, commands, browsers, and long compilations.
SLOW_FILES = [
    "test_attention.py",
    "test_attribution.py",
    "test_benchmarks.py",
    "test_crop_command.py",
    "test_demo.py",
    "test_deploy.py",
    "test_detectors.py",
    "test_epoch.py",
    "test_eval.py",
    "test_examples.py",
    "test_experiment.py",
    "test_faults.py",
    "test_folder.py",
    "test_following.py",
    "test_fuzz.py",
    "test_grid_sample_page.py",
    "test_loop.py",
    "test_main.py",
    "test_multihost.py",
    "test_not_finite.py",
    "test_numerics.py",
    "test_onnx_detector.py",
    "test_packaging.py",
    "test_predictor.py",
    "test_programs.py",
    "test_quality.py",
    "test_regions.py",
    "test_restart.py",
    "test_resume.py",
    "test_reuse.py",
    "test_spatial_transformer_derivatives.py",
    "test_spatial_transformer_not_finite.py",
    "test_spatial_transformer_volumes.py",
    "test_streaming.py",
    "test_trajectory.py",
    "test_versions.py",
    "test_video.py",
    "test_webpage.py",
]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in SLOW_FILES or {"prepared", "finished"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A data_dir with a small synthetic dataset, prepared once."""
    from datasets.common import prepare
    from datasets.synthetic_faces import synthetic_faces_dataset_builder as module

    data_dir = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        # 35 faces of each
        patch.setattr(module.Builder, "SUBJECTS", {"train": 4, "validation": 1, "test": 1})
        prepare(module.Builder(data_dir=data_dir))
    return data_dir


@pytest.fixture(scope="session")
def finished(prepared, tmp_path_factory):
    """The folder and the output of a short training."""
    workdir = tmp_path_factory.mktemp("finished") / "run"  # no other run is beside it
    done = run(*train_arguments(prepared, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, and a function that frees space on it."""
    from tests.faults import disks

    with disks.small_disk(tmp_path / "small", 3 << 10) as make_room:
        if make_room is None:
            pytest.skip("only root may mount a small tmpfs")
        yield tmp_path / "small", make_room
