"""psycopg 3: bytes, Jsonb and str need no cast, floats are double precision."""
import json
import os
import pathlib

import psycopg
from psycopg.types.json import Jsonb

strokes = [[[10, 90, 90, 10, 10], [20, 20, 80, 80, 20]]]
photos = sorted(pathlib.Path(os.environ["PHOTOS"]).iterdir())
calls = 0

with psycopg.connect(autocommit=True) as db:

    def run(statement, *parameters):
        global calls
        calls += 1
        return db.execute(statement, parameters)

    run("CREATE EXTENSION pg_sketch")
    run("CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)")
    for photo in photos:
        run("INSERT INTO photo (name, image) VALUES (%s, %s)", photo.name, photo.read_bytes())
    run("SELECT sketch_enable(%s, %s)", "photo", "image")
    run("SELECT sketch_build_codebook(%s, %s, weight => %s)", "photo", "photo", 0.3)
    run("SELECT sketch_fuse_photos(%s)", "photo")

    nearest = "SELECT id FROM photo ORDER BY {} LIMIT %s"
    found = run(nearest.format("fused <-> sketch_embed(%s)"), Jsonb(strokes), 10).fetchall()
    distance = nearest.format("sketch_distance(fused, %s)")
    assert len(found) == 10
    assert found == run(distance, Jsonb(strokes), 10).fetchall()
    assert found == run(distance, json.dumps(strokes), 10).fetchall()
    assert found == run(distance, json.dumps(strokes).encode(), 10).fetchall()

    [embedding] = run("SELECT sketch_embed(%s)", Jsonb(strokes)).fetchone()
    assert found == run(nearest.format("fused <-> %s"), embedding, 10).fetchall()
    [values] = run("SELECT sketch_embed(%s)::real[]", Jsonb(strokes)).fetchone()
    assert found == run(nearest.format("fused <-> %s::embedding"), values, 10).fetchall()

print(f"{calls} calls")
