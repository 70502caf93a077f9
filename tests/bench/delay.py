"""Passes the connections of a Unix socket on to another, each byte so many milliseconds later, and counts the bytes.

usage: delay.py LISTEN TARGET MILLISECONDS COUNTS

COUNTS is a file that gets a line for each connection when it ends: bytes to the target, and bytes back.
"""

import asyncio
import sys


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> int:
    """Returns the number of bytes."""
    queue: asyncio.Queue = asyncio.Queue()
    loop = asyncio.get_running_loop()
    count = 0

    async def send() -> None:
        while True:
            due, data = await queue.get()
            # The loop's timers are a millisecond late at most.
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    sender = asyncio.create_task(send())
    while True:
        try:
            data = await reader.read(1 << 16)
        except ConnectionError:
            data = b""
        count += len(data)
        queue.put_nowait((loop.time() + delay, data))
        if not data:
            break
    await asyncio.gather(sender, return_exceptions=True)
    return count


async def main() -> None:
    listen, target, milliseconds, counts = sys.argv[1:]
    delay = float(milliseconds) / 1000

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(target)
        there, back = await asyncio.gather(pass_on(reader, to_writer, delay), pass_on(to_reader, writer, delay))
        with open(counts, "a") as file:
            print(there, back, file=file)

    server = await asyncio.start_unix_server(connection, listen)
    await server.serve_forever()


asyncio.run(main())
