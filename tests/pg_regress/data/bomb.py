"""Writes a valid PNG of 30000 x 30000 black pixels, one bit each, to standard output: some 110 kB."""
import struct
import sys
import zlib

SIDE = 30000


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


row = b"\0" * (1 + (SIDE + 7) // 8)
header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
pixels = zlib.compress(row * SIDE, 9)
sys.stdout.buffer.write(
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
)
