"""A one-layer network as an ONNX file, written by hand from the format's published schema.

Messages of onnx.proto3: a field is its number and wire type, then a varint or length and bytes.
"""

import numpy as np
from numpy.typing import NDArray

FLOAT = 1


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(name: str, values: NDArray[np.float32]) -> bytes:
    dims = b"".join(number(1, side) for side in values.shape)
    return dims + number(2, FLOAT) + block(8, name) + block(9, values.tobytes())


def value_info(name: str, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(
        block(1, number(1, side) if isinstance(side, int) else block(2, side)) for side in shape
    )
    kind = block(1, number(1, FLOAT) + block(2, dims))
    return block(1, name) + block(2, kind)


def whole_numbers(name: str, values: tuple[int, ...]) -> bytes:
    return block(1, name) + b"".join(number(8, v) for v in values) + number(20, 7)


def convolution(
    weight: NDArray[np.float32], bias: NDArray[np.float32], shape: tuple[int | str, ...]
) -> bytes:
    """Write a model of one padded convolution, for pictures (1, 3, H, W) of `shape`."""
    pad = weight.shape[2] // 2
    node = b"".join(block(1, name) for name in ("input_image", "weight", "bias"))
    node += block(2, "output_image") + block(4, "Conv")
    node += block(5, whole_numbers("pads", (pad, pad, pad, pad)))
    graph = block(1, node) + block(2, "tiny")
    graph += block(5, tensor("weight", weight)) + block(5, tensor("bias", bias))
    graph += block(11, value_info("input_image", shape))
    graph += block(12, value_info("output_image", (1, len(weight), *shape[2:])))
    return number(1, 8) + block(7, graph) + block(8, number(2, 13))
