"""Settings that must be made before JAX starts; the commands that tests run inherit them."""

import os
import sys
import tempfile
from pathlib import Path

os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # for the tests of data parallelism
# Compiling takes most of the tests' time: a third without optimisation, and once for commands that
# run the same program.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jax-cache-")

sys.path.insert(0, str(Path(__file__).parent))  # for commands.py

import pytest
from commands import run, train_arguments


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
    workdir = tmp_path_factory.mktemp("finished")
    done = run(*train_arguments(prepared, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, and a function that makes room on it."""
    from tests.faults import harness

    with harness.small_disk(tmp_path / "small", 3 << 10) as make_room:
        if make_room is None:
            pytest.skip("only root may mount a small tmpfs")
        yield tmp_path / "small", make_room
