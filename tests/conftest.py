"""Two CPU devices for the tests of data parallelism; must be set before JAX starts."""

import os

os.environ["JAX_NUM_CPU_DEVICES"] = "2"
