"""Benchmarks, some against PyTorch and ONNX Runtime: run `python -m benchmarks.NAME`."""

import os

# One CPU device per core, as in main.py; set before JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))
