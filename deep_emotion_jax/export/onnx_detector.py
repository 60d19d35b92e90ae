"""YuNet (`data/yunet.py`) as an ONNX graph, decoding included.

Its input is `picture`, uint8 [1, H, W, 3] RGB, with H and W multiples of 32. Its output `found` is
[A, 15], one row per place in the picture: score in [0, 1], left, top, right and bottom of the
box in pixels, and x and y of five landmarks, in the order of `yunet.detect`.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from deep_emotion_jax.data import yunet
from deep_emotion_jax.export.onnx_builder import GraphBuilder, float_info


def detector_graph(weights: yunet.Weights, *, bits: int = 32) -> onnx.ModelProto:
    """Build the graph.

    Args:
      weights: YuNet's.
      bits: see `GraphBuilder`.
    """
    return _Graph(weights, bits).proto


class _Graph(GraphBuilder):
    """The layers of `yunet.features`, then `yunet.detect`; images are [1, C, H, W] inside."""

    def __init__(self, weights: yunet.Weights, bits: int):
        super().__init__(bits=bits)
        self._given = weights
        heads = zip(yunet.STRIDES, self._heads(), strict=True)
        levels = [self._decoded(head, stride) for stride, head in heads]
        self.add("Concat", levels, "found", axis=0)
        picture = helper.make_tensor_value_info(
            "picture", TensorProto.UINT8, [1, "height", "width", 3]
        )
        self.proto = self.build("yunet", [picture], [float_info("found", ["places", 15])])

    def _heads(self) -> list[str]:
        x = self.add("Cast", ["picture"], to=TensorProto.FLOAT)
        x = self.add("Transpose", [x], perm=[0, 3, 1, 2])
        x = self.add("Relu", [self._conv(x, "stem", strides=[2, 2], pads=[1] * 4)])
        x = self.add("Relu", [self._unit(x, "backbone.0")])
        x = self._units(self._units(self._max_pool(x), "backbone.1"), "backbone.2")
        fine = self._units(self._max_pool(x), "backbone.3")
        middle = self._units(self._max_pool(fine), "backbone.4")
        coarse = self._units(self._max_pool(middle), "backbone.5")
        coarse = self.add("Relu", [self._unit(coarse, "neck.2")])
        middle = self.add("Add", [middle, self._double(coarse)])
        middle = self.add("Relu", [self._unit(middle, "neck.1")])
        fine = self.add("Add", [fine, self._double(middle)])
        fine = self.add("Relu", [self._unit(fine, "neck.0")])
        return [self._unit(x, f"heads.{i}") for i, x in enumerate((fine, middle, coarse))]

    def _conv(self, x: str, name: str, **attributes: Any) -> str:
        kernel = np.asarray(self._given[f"{name}.kernel"])
        if kernel.ndim == 2:  # 1 x 1
            kernel = kernel[None, None]
        elif kernel.ndim == 3:  # depthwise
            kernel = kernel[:, :, None]
        weights = [self.kernel(kernel.transpose(3, 2, 0, 1), axis=0)]
        weights.append(self.constant(self._given[f"{name}.bias"]))
        return self.add("Conv", [x, *weights], **attributes)

    def _unit(self, x: str, name: str) -> str:
        channels = np.asarray(self._given[f"{name}.depth.bias"]).size
        point = self._conv(x, f"{name}.point")
        return self._conv(point, f"{name}.depth", group=channels, pads=[1] * 4)

    def _units(self, x: str, name: str) -> str:
        for i in range(2):
            x = self.add("Relu", [self._unit(x, f"{name}.{i}")])
        return x

    def _max_pool(self, x: str) -> str:
        return self.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def _double(self, x: str) -> str:
        scales = self.constant([1.0, 1.0, 2.0, 2.0])
        rounding = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
        return self.add("Resize", [x, "", scales], nearest_mode="floor", **rounding)

    def _decoded(self, head: str, stride: int) -> str:
        """Rows [places, 15] of a level's raw output [1, 16, rows, columns]."""
        score, fit, offset, size, points = self._split(head, (1, 1, 2, 2, 10))
        likely = [self.add("Sigmoid", [part]) for part in (score, fit)]
        score = self.add("Sqrt", [self.add("Mul", likely)])
        corner = self._corners(score, stride)
        step, half_step = self.constant(float(stride)), self.constant(stride / 2)
        centre = self.add("Add", [corner, self.add("Mul", [offset, step])])
        half = self.add("Mul", [self.add("Exp", [size]), half_step])
        edges = [self.add(op, [centre, half]) for op in ("Sub", "Add")]
        corners = self.add("Concat", [corner] * 5, axis=1)
        points = self.add("Add", [corners, self.add("Mul", [points, step])])
        rows = self.add("Concat", [score, *edges, points], axis=1)
        rows = self.add("Transpose", [rows], perm=[0, 2, 3, 1])
        return self.add("Reshape", [rows, self.constant([-1, 15])])

    def _split(self, head: str, channels: tuple[int, ...]) -> list[str]:
        ends = np.cumsum(channels).tolist()
        axis = self.constant([1])
        return [
            self.add("Slice", [head, self.constant([end - size]), self.constant([end]), axis])
            for end, size in zip(ends, channels, strict=True)
        ]

    def _corners(self, like: str, stride: int) -> str:
        """Return x and y in pixels, [1, 2, rows, columns], of a map [1, 1, rows, columns]."""
        strides = helper.make_tensor("value", TensorProto.FLOAT, [1], [stride])
        steps = self.add("ConstantOfShape", [self.add("Shape", [like])], value=strides)
        axes = [self.constant(np.int64(axis)) for axis in (3, 2)]
        sums = [self.add("CumSum", [steps, axis], exclusive=1) for axis in axes]
        return self.add("Concat", sums, axis=1)
