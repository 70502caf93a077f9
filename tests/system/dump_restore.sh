#!/usr/bin/env bash
# A dump restores model, codebook, embeddings and galleries: the same drawing ranks the same photos at the same distances,
# and new photos are embedded.
#   tests/system/dump_restore.sh DIR   DIR: a running cluster of tests/cluster.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bindir=$("$PG_CONFIG" --bindir)
export PGHOST=$1 PGUSER=postgres PGOPTIONS='--client-min-messages=warning'

psql_in() { "$bindir/psql" -X --quiet --set ON_ERROR_STOP=1 --no-align --tuples-only --dbname "$@"; }

for database in original restored; do
    psql_in postgres -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database"
done
photo=$(base64 -w0 model/tests/fixtures/photo.png)
psql_in original >/dev/null <<EOF
CREATE EXTENSION pg_sketch;
CREATE TABLE photo (id int PRIMARY KEY, image bytea);
SELECT sketch_enable('photo', 'image');
INSERT INTO photo SELECT 1, decode('$photo', 'base64');
-- Synthetic embeddings stand in for many different photos, as if they had been copied from another table.
INSERT INTO photo (id, image, embedding)
SELECT n, decode('$photo', 'base64'),
       (format('[%s]@%s', (SELECT string_agg((sin(n * i) / 16)::text, ',') FROM generate_series(1, 512) AS i),
               lpad(to_hex(sketch_current_model()), 8, '0')))::embedding
FROM generate_series(2, 200) AS n;
CALL sketch_embed_photos('photo');

-- A gallery with a dropped column, renamed columns, a new name and a new schema: after the restore, its columns have other numbers.
CREATE SCHEMA "Odd one";
CREATE TABLE changed (dropped int, id int, bytes bytea);
SELECT sketch_enable('changed', 'bytes', 'e', 'f', codebook => 'public.photo');
ALTER TABLE changed DROP COLUMN dropped;
ALTER TABLE changed RENAME bytes TO "Bild é";
ALTER TABLE changed RENAME e TO "a ""quoted"" one";
ALTER TABLE changed RENAME TO "Re.named";
ALTER TABLE "Re.named" SET SCHEMA "Odd one";
-- A temporary table, and a table that was dropped while event triggers were off, do not break the restore.
CREATE TEMP TABLE temporary (image bytea);
SELECT sketch_enable('temporary', 'image', embed => false);
CREATE TABLE unnoticed (image bytea);
SELECT sketch_enable('unnoticed', 'image', embed => false);
SET session_replication_role = replica;
DROP TABLE unnoticed;
EOF

rank() {
    psql_in "$1" -c "SELECT id, sketch_codebook_id(fused), sketch_distance(fused, '[[[0,99,50],[0,30,80]]]'::bytea)
                     FROM photo ORDER BY 3, 1" \
        -c "SELECT model_id, name, encode(sha256, 'hex'), created_at FROM sketch.model" \
        -c "SELECT * FROM sketch.galleries ORDER BY relation::text" \
        -c "SELECT codebook_id, encode(sha256, 'hex') FROM sketch.codebook" -c "SELECT md5(string_agg(p::text, '' ORDER BY p)) FROM sketch.prototype AS p"
}

before=$(rank original)
[ "$(grep -c '^[0-9]*|[0-9]*|0\.\|^[0-9]*|[0-9]*|1\.' <<<"$before")" = 200 ] || { echo "expected 200 fused photos" >&2; exit 1; }
"$bindir/pg_dump" --format=custom original | "$bindir/pg_restore" --exit-on-error --dbname=restored
after=$(rank restored)
diff <(echo "$before") <(echo "$after") || { echo "the restored database ranks differently" >&2; exit 1; }
# The restored gallery keeps working: new photos are fused with the restored codebook, and no model is loaded again.
psql_in restored -c "INSERT INTO photo (id, image) SELECT 1000, image FROM photo WHERE id = 1"
same=$(psql_in restored -c "SELECT a.fused <-> b.fused = 0 AND (SELECT count(*) FROM sketch.model) = 1 FROM photo AS a, photo AS b WHERE (a.id, b.id) = (1, 1000)")
[ "$same" = t ] || { echo "a photo inserted after the restore is fused differently" >&2; exit 1; }
same=$(psql_in restored <<'SQL'
INSERT INTO "Odd one"."Re.named" (id, "Bild é") SELECT 1, image FROM photo WHERE id = 1;
SELECT c."a ""quoted"" one" <-> p.embedding = 0 AND c.f <-> p.fused = 0 FROM "Odd one"."Re.named" AS c, photo AS p WHERE p.id = 1;
SQL
)
[ "$same" = t ] || { echo "a photo inserted into a changed gallery is embedded differently" >&2; exit 1; }
numbers="SELECT sketch.column_number(image) FROM sketch.gallery WHERE relation = '\"Odd one\".\"Re.named\"'::regclass"
[ "$(psql_in original -c "$numbers") $(psql_in restored -c "$numbers")" = "3 2" ] || { echo "the columns of the changed gallery were not numbered anew" >&2; exit 1; }
for database in original restored; do psql_in postgres -c "DROP DATABASE $database"; done
echo "200 photos rank the same after dump and restore, and galleries keep working"
