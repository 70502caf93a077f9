// node-postgres: a Buffer has no type of its own, so that it needs a cast; a string without a cast is text.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";

const strokes = JSON.stringify([[[10, 90, 90, 10, 10], [20, 20, 80, 80, 20]]]);
const folder = process.env.PHOTOS;
let calls = 0;

const db = new pg.Client();
await db.connect();
async function run(statement, ...parameters) {
  calls++;
  return (await db.query({ text: statement, values: parameters, rowMode: "array" })).rows;
}

await run("CREATE EXTENSION pg_sketch");
await run("CREATE TABLE photo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, image bytea)");
for (const name of readdirSync(folder).sort()) {
  await run("INSERT INTO photo (name, image) VALUES ($1, $2)", name, readFileSync(join(folder, name)));
}
await run("SELECT sketch_enable($1, $2)", "photo", "image");
await run("SELECT sketch_build_codebook($1, $2, weight => $3)", "photo", "photo", 0.3);
await run("SELECT sketch_fuse_photos($1)", "photo");

const nearest = (distance) => `SELECT id FROM photo ORDER BY ${distance} LIMIT $2`;
const found = await run(nearest("fused <-> sketch_embed($1::jsonb)"), strokes, 10);
assert.equal(found.length, 10);
assert.deepEqual(await run(nearest("sketch_distance(fused, $1::jsonb)"), strokes, 10), found);
assert.deepEqual(await run(nearest("sketch_distance(fused, $1)"), strokes, 10), found);
assert.deepEqual(await run(nearest("sketch_distance(fused, $1::bytea)"), Buffer.from(strokes), 10), found);

const [[embedding]] = await run("SELECT sketch_embed($1)", strokes);
assert.deepEqual(await run(nearest("fused <-> $1"), embedding, 10), found);
const [[values]] = await run("SELECT sketch_embed($1)::real[]", strokes);
assert.deepEqual(await run(nearest("fused <-> $1::double precision[]::embedding"), values, 10), found);
await db.end();
console.log(`${calls} calls`);
