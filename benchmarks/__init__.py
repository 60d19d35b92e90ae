"""Measurements against PyTorch and ONNX Runtime: `python -m benchmarks.NAME` in the repository."""

import os

# As main.py does: one CPU device a core, set before JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count() or 1))
