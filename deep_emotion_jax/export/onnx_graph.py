"""The network as an ONNX graph of standard operators, AffineGrid and GridSample among them.

The graph is built here, one node per layer. The converter jax2onnx (0.17) requires an
orbax-checkpoint before 0.11.37, older than this package needs; installed without that, it converts
the network to about 2,000 nodes and no GridSample. `programs.to_onnx` compares the result with the
network.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from flax import nnx
from onnx import TensorProto, helper, numpy_helper

from deep_emotion_jax.nn.model import IMAGE_SIZE, LEAK, ConvStage, DeepEmotion
from deep_emotion_jax.nn.weights import fold_batch_norm

OPSET = 20  # the first with AffineGrid; GridSample calls bilinear sampling "linear" from here on
IR_VERSION = 9  # of the same ONNX release; older runtimes refuse newer files


def onnx_graph(model: DeepEmotion) -> onnx.ModelProto:
    """Build the graph, with BatchNorm folded into the convolutions.

    Its input is `images` [batch, 48, 48, 1] in [0, 1], its outputs are `logits` [batch, K] and,
    if there is a sampler, `theta` [batch, 2, 3].
    """
    return _Graph(fold_batch_norm(model)).proto


class _Graph:
    """Nodes and weights; images are [N, C, H, W] inside, as ONNX expects."""

    def __init__(self, model: DeepEmotion):
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        outputs = [_float_info("logits", ["batch", model.fc2.out_features])]
        x = self._add("Reshape", ["images", self._constant([0, 1, IMAGE_SIZE, IMAGE_SIZE])])
        x = self._standardize(x)
        theta = None
        if model.localization is not None:
            outputs.append(_float_info("theta", ["batch", 2, 3]))
            theta = self._theta(x, model)
        if theta and model.attended == 0:
            x = self._sample(x, theta)
        for i, stage in enumerate(model.stages, 1):
            x = self._stage(x, stage)
            if theta and i == model.attended:
                x = self._sample(x, theta)
        x = self._add("Relu", [self._linear(self._flatten(x), model.fc1)])
        self._linear(x, model.fc2, "logits")
        graph = helper.make_graph(
            self._nodes,
            "deep_emotion",
            [_float_info("images", ["batch", IMAGE_SIZE, IMAGE_SIZE, 1])],
            outputs,
            self._weights,
        )
        self.proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )

    def _add(
        self, op: str, inputs: Sequence[str], output: str | None = None, **attributes: Any
    ) -> str:
        output = output or f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, value: object) -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def _standardize(self, x: str) -> str:
        axes = self._constant([1, 2, 3])
        centred = self._add("Sub", [x, self._add("ReduceMean", [x, axes])])
        variance = self._add("ReduceMean", [self._add("Mul", [centred, centred]), axes])
        deviation = self._add("Max", [self._add("Sqrt", [variance]), self._constant(1 / 255)])
        return self._add("Div", [centred, deviation])

    def _stage(self, x: str, stage: ConvStage) -> str:
        first = None
        for i, conv in enumerate(stage.convs, 1):
            kernel = np.asarray(conv.kernel).transpose(3, 2, 0, 1)
            margin = kernel.shape[-1] // 2 if stage.padding == "SAME" else 0
            weights = [self._constant(kernel), self._constant(conv.bias)]
            x = self._add("Conv", [x, *weights], pads=[margin] * 4)
            if stage.residual and first and i == len(stage.convs):
                x = self._add("Add", [x, first])
            x = self._add("Relu", [x])
            first = first or x
        # The paper's ReLU after the pool changes nothing here: what is pooled is not negative.
        return self._add("MaxPool", [x], kernel_shape=[stage.pool] * 2, strides=[stage.pool] * 2)

    def _theta(self, face: str, model: DeepEmotion) -> str:
        assert model.localization is not None
        x = face
        for stage in model.localization.stages:
            x = self._stage(x, stage)
        x = self._linear(self._flatten(x), model.localization.hidden)
        if model.localization.leaky:
            x = self._add("LeakyRelu", [x], alpha=LEAK)
        else:
            x = self._add("Relu", [x])
        x = self._linear(x, model.localization.theta)
        return self._add("Reshape", [x, self._constant([0, 2, 3])], "theta")

    def _sample(self, x: str, theta: str) -> str:
        grid = self._add("AffineGrid", [theta, self._add("Shape", [x])], align_corners=0)
        return self._add(
            "GridSample", [x, grid], mode="linear", padding_mode="zeros", align_corners=0
        )

    def _flatten(self, x: str) -> str:
        # The weights expect channels last.
        return self._add("Flatten", [self._add("Transpose", [x], perm=[0, 2, 3, 1])])

    def _linear(self, x: str, layer: nnx.Linear, output: str | None = None) -> str:
        weights = [self._constant(layer.kernel), self._constant(layer.bias)]
        return self._add("Gemm", [x, *weights], output)


def _float_info(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
