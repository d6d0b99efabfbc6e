# SPDX-License-Identifier: Apache-2.0
"""What the decoder of browser/ needs of a model: its pixel decoder as ONNX graphs, the rest as safetensors."""
