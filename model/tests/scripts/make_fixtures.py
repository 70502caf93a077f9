"""Writes the fixtures of the decoding and preprocessing tests.

The expected pictures come from another implementation than the one under test: Pillow for resizing, and for strokes
the distance of every sample point to the nearest line segment. Needs pillow 13 and numpy 2:

    python3 model/tests/scripts/make_fixtures.py model/tests/fixtures
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

OUT = Path(sys.argv[1])
SIZE = 64
SAMPLES = 8


def corners(width=48, height=32, mode="RGB"):
    """A picture whose four quarters tell which way up it is."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, width // 2 - 1, height // 2 - 1], fill=(220, 30, 30))
    draw.rectangle([width // 2, 0, width - 1, height // 2 - 1], fill=(30, 200, 30))
    draw.rectangle([0, height // 2, width // 2 - 1, height - 1], fill=(30, 30, 220))
    return image.convert(mode)


def decoding():
    upright = corners()
    upright.save(OUT / "plain.png", optimize=True)
    upright.convert("P", palette=Image.Palette.ADAPTIVE).save(OUT / "palette.png", optimize=True)
    Image.fromarray((np.arange(32 * 48, dtype=np.uint32).reshape(32, 48) * 42).astype(np.uint16)).save(OUT / "grey16.png")
    upright.save(OUT / "plain.jpg", quality=90)
    upright.save(OUT / "progressive.jpg", quality=90, progressive=True)
    upright.convert("CMYK").save(OUT / "cmyk.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be shown turned by 90 degrees clockwise.
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(OUT / "turned.jpg", quality=90, exif=exif)
    turned.save(OUT / "turned.png", exif=exif)
    turned.save(OUT / "turned.webp", lossless=True, exif=exif)
    upright.save(OUT / "lossy.webp", quality=90)
    upright.save(OUT / "lossless.webp", lossless=True)
    other = Image.new("RGB", upright.size, (0, 0, 0))
    for name in ("animated.webp", "animated.png"):
        extra = {"lossless": True} if name.endswith("webp") else {}
        upright.save(OUT / name, save_all=True, append_images=[other, upright], duration=100, **extra)
    upright.save(OUT / "other.gif")


def drawing():
    """A face with a hat: curves, straight lines, a dot."""
    turn = np.linspace(0, 2 * np.pi, 40)
    head = [(100 + 60 * np.cos(t), 140 + 70 * np.sin(t)) for t in turn]
    mouth = [(70 + x, 170 + 15 * np.sin(x / 60 * np.pi)) for x in np.linspace(0, 60, 12)]
    hat = [(40, 80), (160, 75), (140, 70), (130, 20), (70, 25), (65, 78)]
    eye = [(80, 120)]
    return [head, mouth, hat, eye]


def coverage(strokes, scale, dx, dy, width):
    """Share of each pixel that lies within width / 2 of a stroke, by SAMPLES x SAMPLES points a pixel."""
    steps = (np.arange(SIZE * SAMPLES) + 0.5) / SAMPLES
    x, y = np.meshgrid(steps, steps)
    inside = np.zeros(x.shape, bool)
    for stroke in strokes:
        points = [(scale * px + dx, scale * py + dy) for px, py in stroke]
        for (ax, ay), (bx, by) in zip(points, points[1:] or points):
            vx, vy = bx - ax, by - ay
            length = vx * vx + vy * vy
            t = np.clip(((x - ax) * vx + (y - ay) * vy) / length, 0, 1) if length else 0 * x
            inside |= (x - ax - t * vx) ** 2 + (y - ay - t * vy) ** 2 <= (width / 2) ** 2
    return inside.reshape(SIZE, SAMPLES, SIZE, SAMPLES).mean((1, 3))


def vectors():
    strokes = drawing()
    quickdraw = [[[round(x, 3) for x, _ in s], [round(y, 3) for _, y in s]] for s in strokes]
    (OUT / "face.json").write_text(json.dumps(quickdraw))
    strokes = [list(zip(*stroke)) for stroke in quickdraw]
    points = np.array([point for stroke in strokes for point in stroke])
    low, high = points.min(0), points.max(0)
    margin, width = 0.125, 2.0
    scale = (SIZE / (1 + 2 * margin) - width) / (high - low).max()
    dx, dy = SIZE / 2 - scale * (low + high) / 2
    grey = np.round(255 * (1 - coverage(strokes, scale, dx, dy, width))).astype(np.uint8)
    Image.fromarray(grey).save(OUT / "face_strokes.png", optimize=True)


def bitmaps():
    """The same drawing as a scan, and what plain resizing makes of a photo-like picture."""
    page = Image.new("L", (300, 220), 255)
    draw = ImageDraw.Draw(page)
    for stroke in drawing():
        draw.line([(x + 60, y) for x, y in stroke], fill=0, width=3, joint="curve")
    page.save(OUT / "face_scan.png", optimize=True)
    page.resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(OUT / "face_scan_exact.png", optimize=True)

    y, x = np.mgrid[0:90, 0:120]
    waves = np.stack([128 + 100 * np.sin(x / 5 + y / 9), 2 * x, 255 - 2 * y], -1).astype(np.uint8)
    photo = Image.fromarray(waves)
    photo.save(OUT / "photo.png", optimize=True)
    photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(OUT / "photo_exact.png", optimize=True)
    photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(15, 0, 105, 90)).save(OUT / "photo_crop.png", optimize=True)


def photos():
    """Photos that are larger than a small network needs, in the kinds of JPEG that cameras write, with grain."""
    y, x = np.mgrid[0:273, 0:361]
    waves = [128 + 90 * np.sin(x / 17 + y / 31), 40 + x / 2, 230 - y / 2 + 20 * np.cos(x / 9)]
    grain = np.random.default_rng(1).normal(0, 5, (273, 361, 3))
    photo = Image.fromarray(np.clip(np.stack(waves, -1) + grain, 0, 255).astype(np.uint8))
    ImageDraw.Draw(photo).ellipse([60, 50, 170, 200], fill=(250, 250, 240), outline=(0, 0, 0), width=3)
    ImageDraw.Draw(photo).rectangle([230, 120, 300, 250], fill=(200, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(OUT / "photo_444.jpg", quality=80, subsampling="4:4:4")
    photo.save(OUT / "photo_422.jpg", quality=80, subsampling="4:2:2", optimize=True)
    photo.save(OUT / "photo_420.jpg", quality=80, subsampling="4:2:0", restart_marker_blocks=5)
    photo.save(OUT / "photo_turned.jpg", quality=80, subsampling="4:2:0", exif=exif)
    photo.save(OUT / "photo_progressive.jpg", quality=80, progressive=True)
    photo.convert("L").save(OUT / "photo_grey.jpg", quality=80)
    photo.convert("CMYK").save(OUT / "photo_cmyk.jpg", quality=60)


OUT.mkdir(parents=True, exist_ok=True)
decoding()
photos()
vectors()
bitmaps()
