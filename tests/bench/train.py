"""Trains a classifier for some steps in PyTorch, or exports it.

usage: train.py export NETWORK SIZE FILE.onnx
       train.py time NETWORK SIZE BATCH STEPS THREADS

NETWORK is a name of the package timm; its weights are random. "time" prints "nchw RATE" and "channels_last RATE":
images per CPU-second of full training steps (forward, backward, Adam), BatchNorm on the statistics of each batch.
"""

import sys
import time

import timm
import torch

WARM_UP = 1


def export(network: str, size: int, file: str) -> None:
    """Writes the network with its BatchNormalization, which the exporter would fold into the convolutions."""
    model = timm.create_model(network, exportable=True).eval()
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, size, size),),
        file,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )


def rate(network: str, size: int, batch: int, steps: int, layout: torch.memory_format) -> float:
    """Images per CPU-second."""
    model = timm.create_model(network).train().to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    image = torch.rand(batch, 3, size, size).mul(2).sub(1).to(memory_format=layout)
    target = torch.arange(batch) * 7 % 1000
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(image), target).backward()
        optimizer.step()
    return batch * steps / (time.process_time() - start)


def main() -> None:
    command, network, size, *rest = sys.argv[1:]
    if command == "export":
        export(network, int(size), rest[0])
        return
    batch, steps, threads = map(int, rest)
    torch.set_num_threads(threads)
    for name, layout in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
        print(name, f"{rate(network, int(size), batch, steps, layout):.2f}")


if __name__ == "__main__":
    main()
