"""Makes photos of a camera's size out of smaller ones, with as much noise as a camera's: JPEG files of quality 90.

usage: enlarge.py FROM TO WIDTH HEIGHT COUNT
"""

import sys
from pathlib import Path

import numpy
from PIL import Image


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    width, height, count = map(int, sys.argv[3:6])
    random = numpy.random.default_rng(0)
    target.mkdir()
    for path in sorted(source.iterdir())[:count]:
        with Image.open(path) as image:
            large = numpy.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), numpy.float32)
        noisy = large + random.normal(0, 6, large.shape).astype(numpy.float32)
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(target / f"{path.stem}.jpg", quality=90)


main()
