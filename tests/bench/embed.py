"""Embeds photos by ONNX Runtime in Python; prints "batch1 RATE" and "batch8 RATE", photos per second.

usage: embed.py FOLDER PHOTOS THREADS

FOLDER holds model.onnx and model.json, its manifest.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image


def read(path: Path, size: int) -> Image.Image:
    """Reads a photo as the network expects it: transparency over white, scaled to a square."""
    with Image.open(path) as image:
        # A large JPEG is decoded at half, a quarter or an eighth of its size.
        image.draft("RGB", (size, size))
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image)
        return image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)


def embed(session: onnxruntime.InferenceSession, manifest: dict, paths: list[Path], batch: int) -> numpy.ndarray:
    """Returns shape (n, d)."""
    size = manifest["input"]["size"]
    mean = numpy.array(manifest["input"]["mean"], numpy.float32)
    scale = 1 / numpy.array(manifest["input"]["std"], numpy.float32)
    embeddings = []
    for start in range(0, len(paths), batch):
        pixels = numpy.stack([numpy.asarray(read(path, size)) for path in paths[start : start + batch]])
        pixels = (pixels * numpy.float32(1 / 255) - mean) * scale
        inputs = {"image": numpy.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
        if manifest["domain_input"]:
            inputs["domain"] = numpy.ones(len(pixels), numpy.int64)
        embeddings.append(session.run(["embedding"], inputs)[0])
    return numpy.concatenate(embeddings)


def main() -> None:
    folder, photos, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    manifest = json.loads((folder / "model.json").read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    paths = sorted(photos.iterdir())
    for batch in (1, 8):
        embed(session, manifest, paths[:8], batch)
        started = time.perf_counter()
        embed(session, manifest, paths, batch)
        print(f"batch{batch} {len(paths) / (time.perf_counter() - started)}")


main()
