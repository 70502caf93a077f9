"""Writes 80 small PNG files, each a rectangle of another size, place and colour, into a folder."""
import pathlib
import struct
import sys
import zlib

SIDE = 48


def png(number):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    left, top, right, bottom = number % 20, number // 4, SIDE - number % 7, SIDE - number % 11
    colour = bytes((number * 3, 255 - number * 2, number * 37 % 256))
    rows = b"".join(
        b"\0" + b"".join(colour if left <= x < right and top <= y < bottom else b"\xff" * 3 for x in range(SIDE)) for y in range(SIDE)
    )
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


folder = pathlib.Path(sys.argv[1])
folder.mkdir()
for number in range(80):
    (folder / f"{number:02}.png").write_bytes(png(number))
