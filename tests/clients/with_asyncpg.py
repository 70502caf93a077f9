"""asyncpg: the server decides the type of a parameter, so that one without a cast is text."""
import asyncio
import json
import os
import pathlib

import asyncpg

strokes = json.dumps([[[10, 90, 90, 10, 10], [20, 20, 80, 80, 20]]])
photos = sorted(pathlib.Path(os.environ["PHOTOS"]).iterdir())
calls = 0


async def main():
    db = await asyncpg.connect()

    async def run(statement, *parameters):
        global calls
        calls += 1
        return await db.fetch(statement, *parameters)

    await run("CREATE EXTENSION pg_sketch")
    # Embeddings travel as text.
    await db.set_type_codec("embedding", encoder=str, decoder=str, format="text")
    await run("CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)")
    for photo in photos:
        await run("INSERT INTO photo (name, image) VALUES ($1, $2)", photo.name, photo.read_bytes())
    await run("SELECT sketch_enable($1::text::regclass, $2)", "photo", "image")
    await run("SELECT sketch_build_codebook($1, $2::text::regclass, weight => $3)", "photo", "photo", 0.3)
    await run("SELECT sketch_fuse_photos($1::text::regclass)", "photo")

    nearest = "SELECT id FROM photo ORDER BY {} LIMIT $2"
    found = await run(nearest.format("fused <-> sketch_embed($1::jsonb)"), strokes, 10)
    assert len(found) == 10
    assert found == await run(nearest.format("sketch_distance(fused, $1::jsonb)"), strokes, 10)
    assert found == await run(nearest.format("sketch_distance(fused, $1)"), strokes, 10)
    assert found == await run(nearest.format("sketch_distance(fused, $1::bytea)"), strokes.encode(), 10)

    [[embedding]] = await run("SELECT sketch_embed($1)", strokes)
    assert found == await run(nearest.format("fused <-> $1"), embedding, 10)
    [[values]] = await run("SELECT sketch_embed($1)::real[]", strokes)
    assert found == await run(nearest.format("fused <-> $1::double precision[]::embedding"), values, 10)
    await db.close()
    print(f"{calls} calls")


asyncio.run(main())
