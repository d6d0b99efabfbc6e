# SPDX-License-Identifier: Apache-2.0
"""The pixel decoder as ONNX graphs, one a level: what `nets.autoencoder` computes in `joined`, `descend` and
`to_pixels`. Weights are float16, everything is computed in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

from vqcodec.config import AutoencoderConfig

OPSET = 17
IR_VERSION = 8  # what belongs to that opset: onnxruntime refuses files that are newer than it

Arrays = Mapping[str, npt.NDArray[Any]]


def level(config: AutoencoderConfig, arrays: Arrays, number: int) -> bytes:
    """Write the graph of a level.

    Inputs are `codewords` [1, D, h, w] and, behind the coarsest level, `state` [1, C, h, w]; the last level also takes
    the gains `finest` and `head` [1, C, 1, 1], if the model has some. Outputs are `features` [1, C, h, w], which
    previews are made of, and `next`, the state of the next level; of the last level `pixels` [1, 3, H, W], about
    0..255.

    Args:
        config: of the autoencoder.
        arrays: its tensors by name.
        number: of the level, coarsest first.

    Returns: the bytes of an ONNX file.
    """
    graph = _Graph(arrays)
    strides, last = config.strides, number + 1 == len(config.levels)
    position = strides.index(config.levels[number].stride)
    inputs = [_value("codewords", config.levels[number].dim, "h", "w")]
    x = "codewords"
    if number:
        inputs.append(_value("state", config.widths[position], "h", "w"))
        x = graph.add("Concat", [x, "state"], axis=1)
    x = graph.convolution(x, f"from_latent.{number}")
    if last and config.gains:
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 1, 1]) for name, size in
                   (("finest", config.widths[position]), ("head", config.widths[0]))]  # fmt: skip
        x = graph.add("Mul", [x, "finest"])
    x = graph.blocks(x, f"decode_blocks.{position}", config.decoder_blocks[position])
    if not last:
        features, target = x, strides.index(config.levels[number + 1].stride)
        x = _up(graph, config, x, position, target, with_blocks=False)
        graph.name(features, "features")
        graph.name(x, "next")
        outputs = [
            _value("features", config.widths[position], "h", "w"),
            _value("next", config.widths[target], "H", "W"),
        ]
    else:
        x = _up(graph, config, x, position, 0, with_blocks=True)
        if config.gains:
            x = graph.add("Mul", [x, "head"])
        x = graph.shuffled(graph.convolution(x, "head"), config.patch)
        x = graph.add("Add", [graph.add("Mul", [x, graph.constant(255.0)]), graph.constant(127.5)])
        graph.name(x, "pixels")
        outputs = [_value("pixels", 3, "H", "W")]
    return graph.written(inputs, outputs)


def _up(graph: _Graph, config: AutoencoderConfig, x: str, position: int, target: int, with_blocks: bool) -> str:
    """To a finer stride, by factors of two. with_blocks: also the blocks of the stride that it ends at."""
    while position > target:
        position -= 1
        x = graph.shuffled(graph.convolution(x, f"up.{position}.conv"), 2)
        if position > target or with_blocks:
            x = graph.blocks(x, f"decode_blocks.{position}", config.decoder_blocks[position])
    return x


def _value(name: str, channels: int, height: str, width: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, height, width])


class _Graph:
    """Nodes and weights of a graph as it is written."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._count = 0

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node. Returns the name of what it computes."""
        self._count += 1
        output = f"x{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def name(self, value: str, name: str) -> None:
        """Give a value the name of an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(self, value: float) -> str:
        """Add a number that belongs to the graph."""
        name = f"constant{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.float32(value).reshape(()), name))
        return name

    def weight(self, name: str) -> str:
        """Add a tensor of the model: stored in float16, cast where it is used."""
        self._weights.append(numpy_helper.from_array(self._arrays[name].astype(np.float16), name))
        return self.add("Cast", [name], to=TensorProto.FLOAT)

    def convolution(self, x: str, name: str) -> str:
        """Add a convolution with the kernel's own padding, so that the size stays."""
        side = self._arrays[f"{name}.weight"].shape[-1]
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.add("Conv", inputs, kernel_shape=[side, side], pads=[side // 2] * 4)

    def blocks(self, x: str, name: str, number: int) -> str:
        """Residual blocks, see `nets.blocks`."""
        for i in range(number):
            inner = self.convolution(self.add("Relu", [x]), f"{name}.{i}.inner")
            x = self.add("Add", [x, self.convolution(self.add("Relu", [inner]), f"{name}.{i}.outer")])
        return x

    def shuffled(self, x: str, factor: int) -> str:
        """Channels to positions, as torch.pixel_shuffle."""
        return self.add("DepthToSpace", [x], blocksize=factor, mode="CRD")

    def written(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        """Make the bytes of the file, checked."""
        graph = helper.make_graph(self._nodes, "decoder", list(inputs), list(outputs), self._weights)
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="vqcodec")
        checker.check_model(model)
        return bytes(model.SerializeToString())
