"""The network as an ONNX graph of standard operators, including AffineGrid and GridSample.

The graph is built here, one node per layer. The converter jax2onnx (0.17) requires an
orbax-checkpoint before 0.11.37, older than this package needs; installed without that, it converts
the network to about 2,000 nodes and no GridSample. `programs.to_onnx` compares the result with the
network.
"""

import numpy as np
import onnx
from flax import nnx

from deep_emotion_jax.constants import IMAGE_SIZE
from deep_emotion_jax.export.onnx_builder import GraphBuilder, float_info
from deep_emotion_jax.nn.layers import LEAK, ConvStage
from deep_emotion_jax.nn.model import DeepEmotion
from deep_emotion_jax.nn.weights import fold_batch_norm


def onnx_graph(model: DeepEmotion, *, bits: int = 32) -> onnx.ModelProto:
    """Build the graph, with BatchNorm folded into the convolutions.

    Its input is `images` [batch, 48, 48, 1] in [0, 1], its outputs are `logits` [batch, K] and,
    if there is a sampler, `theta` [batch, 2, 3].

    Args:
      model: the network.
      bits: see `GraphBuilder`.
    """
    return _Graph(fold_batch_norm(model), bits).proto


class _Graph(GraphBuilder):
    """The network's layers, with images as [N, C, H, W], as ONNX expects.

    It repeats the forward pass of `DeepEmotion`, because each operation is another node here.
    """

    def __init__(self, model: DeepEmotion, bits: int):
        super().__init__(bits=bits)
        outputs = [float_info("logits", ["batch", model.fc2.out_features])]
        x = self.add("Reshape", ["images", self.constant([0, 1, IMAGE_SIZE, IMAGE_SIZE])])
        x = self._standardize(x)
        theta = None
        if model.localization is not None:
            outputs.append(float_info("theta", ["batch", 2, 3]))
            theta = self._theta(x, model)
        if theta and model.attended == 0:
            x = self._sample(x, theta)
        for i, stage in enumerate(model.stages, 1):
            x = self._stage(x, stage)
            if theta and i == model.attended:
                x = self._sample(x, theta)
        x = self.add("Relu", [self._linear(self._flatten(x), model.fc1)])
        self._linear(x, model.fc2, "logits")
        images = float_info("images", ["batch", IMAGE_SIZE, IMAGE_SIZE, 1])
        self.proto = self.build("deep_emotion", [images], outputs)

    def _standardize(self, x: str) -> str:
        axes = self.constant([1, 2, 3])
        centred = self.add("Sub", [x, self.add("ReduceMean", [x, axes])])
        variance = self.add("ReduceMean", [self.add("Mul", [centred, centred]), axes])
        deviation = self.add("Max", [self.add("Sqrt", [variance]), self.constant(1 / 255)])
        return self.add("Div", [centred, deviation])

    def _stage(self, x: str, stage: ConvStage) -> str:
        first = None
        for i, conv in enumerate(stage.convs, 1):
            kernel = np.asarray(conv.kernel).transpose(3, 2, 0, 1)
            margin = kernel.shape[-1] // 2 if stage.padding == "SAME" else 0
            weights = [self.kernel(kernel, axis=0), self.constant(conv.bias)]
            x = self.add("Conv", [x, *weights], pads=[margin] * 4)
            if stage.residual and first and i == len(stage.convs):
                x = self.add("Add", [x, first])
            x = self.add("Relu", [x])
            first = first or x
        # The paper's ReLU after the pool has no effect: the pool's input is not negative.
        return self.add("MaxPool", [x], kernel_shape=[stage.pool] * 2, strides=[stage.pool] * 2)

    def _theta(self, face: str, model: DeepEmotion) -> str:
        assert model.localization is not None
        x = face
        for stage in model.localization.stages:
            x = self._stage(x, stage)
        x = self._linear(self._flatten(x), model.localization.hidden)
        if model.localization.leaky:
            x = self.add("LeakyRelu", [x], alpha=LEAK)
        else:
            x = self.add("Relu", [x])
        x = self._linear(x, model.localization.theta)
        return self.add("Reshape", [x, self.constant([0, 2, 3])], "theta")

    def _sample(self, x: str, theta: str) -> str:
        grid = self.add("AffineGrid", [theta, self.add("Shape", [x])], align_corners=0)
        return self.add(
            "GridSample", [x, grid], mode="linear", padding_mode="zeros", align_corners=0
        )

    def _flatten(self, x: str) -> str:
        # The weights expect channels last.
        return self.add("Flatten", [self.add("Transpose", [x], perm=[0, 2, 3, 1])])

    def _linear(self, x: str, layer: nnx.Linear, output: str | None = None) -> str:
        weights = [self.kernel(layer.kernel, axis=1), self.constant(layer.bias)]
        return self.add("Gemm", [x, *weights], output)
