"""Settings that must be made before JAX starts; the commands that tests run inherit them."""

import os
import subprocess
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
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
