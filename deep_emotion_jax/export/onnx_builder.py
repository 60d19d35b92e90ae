"""Builds ONNX graphs, one node at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with AffineGrid; GridSample calls bilinear sampling "linear" from here on
IR_VERSION = 9  # of the same ONNX release; older runtimes refuse newer files
# Kernels of fewer weights stay float32: the nodes that unpack them take more bytes.
SMALLEST = 1024


class GraphBuilder:
    """Collects nodes and weights; outputs are named after their operators by default.

    Args:
      bits: of each weight that `kernel` adds, 12, 16 or 32. Fewer than 32 are integers with one
        scale per output channel, which become float32 again when a runtime loads the file.
    """

    def __init__(self, *, bits: int = 32):
        self._bits = bits
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(
        self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output and return the output's name."""
        output = output or f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: object) -> str:
        """Add a constant, floats as float32, and return its name."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def kernel(self, value: object, axis: int) -> str:
        """Add a layer's kernel and return its name; `axis` is that of its output channels."""
        array = np.asarray(value, np.float32)
        if self._bits == 32 or array.size % 2 or array.size < SMALLEST:
            return self.constant(array)
        others = tuple(i for i in range(array.ndim) if i != axis)
        largest = 2 ** (self._bits - 1) - 1
        scale = np.abs(array).max(axis=others, keepdims=True) / largest
        scale = np.where(scale > 0, scale, 1)
        integers = np.rint(array / scale).astype(np.int16)
        number = (
            self._packed(integers) if self._bits == 12 else self._float(self.constant(integers))
        )
        return self.add("Mul", [number, self.constant(scale)])

    def _packed(self, integers: np.ndarray) -> str:
        """Add 12-bit integers as arrays of the high 8 bits and of the low 4 bits, two per byte."""
        unsigned = integers.ravel() + 2048
        first, second = np.split(unsigned & 15, 2)
        pairs = self.constant((first << 4 | second).astype(np.uint8))
        shift, mask = self.constant(np.uint8(4)), self.constant(np.uint8(15))
        first_half = self.add("BitShift", [pairs, shift], direction="RIGHT")
        second_half = self.add("BitwiseAnd", [pairs, mask])
        low = self._float(self.add("Concat", [first_half, second_half], axis=0))
        high = self._float(self.constant((unsigned >> 4).astype(np.uint8)))
        high = self.add("Mul", [high, self.constant(16.0)])
        signed = self.add("Sub", [self.add("Add", [high, low]), self.constant(2048.0)])
        return self.add("Reshape", [signed, self.constant(np.array(integers.shape))])

    def _float(self, x: str) -> str:
        return self.add("Cast", [x], to=TensorProto.FLOAT)

    def build(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """Return the ONNX model of the added nodes and weights."""
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._weights)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )


def float_info(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """Describe a float32 input or output; names in the shape stand for any size."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
