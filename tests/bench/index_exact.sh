# The part of index.sh that compares the index's answers with the sequential scan's.
# shellcheck shell=bash disable=SC2154

on() { sql exact "$@"; }
nearest() {
    echo "SELECT id, fused <-> (SELECT fused FROM query WHERE id = \$1) AS distance
        FROM photo ORDER BY distance$1 LIMIT 10"
}

sql postgres -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS exact' -c 'CREATE DATABASE exact'
on -c 'CREATE EXTENSION pg_sketch' -f "$here/index.sql"
on -c 'CREATE TABLE sketch (number serial, fused embedding)' -c 'COPY sketch (fused) FROM STDIN BINARY' <"$cache/sketch.copy"

# fill SET: tables photo and query.
fill() {
    local strangers=$1
    on -c 'SET client_min_messages = warning' -c 'DROP TABLE IF EXISTS photo, stranger, query, exact' \
        -c 'CREATE TABLE photo (id bigint, fused embedding); CREATE TABLE stranger (id bigint, fused embedding)'
    make_set "$1" "$sizes" 1 | on -c 'COPY photo FROM STDIN BINARY'
    # The set "real" has no more photos than the data.
    [ "$1" != real ] || strangers=photos
    make_set "$strangers" "$exact" 2 | on -c 'COPY stranger FROM STDIN BINARY'
    # Every fourth query is a row of the set. Sets of photos are also searched by all real sketches.
    on -c 'CREATE TABLE query (id integer PRIMARY KEY, fused embedding)' -c "INSERT INTO query
        SELECT stranger.id, CASE WHEN stranger.id % 4 = 0 THEN photo.fused
                                 WHEN '$1' IN ('real', 'photos') THEN coalesce(sketch.fused, stranger.fused)
                                 ELSE stranger.fused END
        FROM stranger
        JOIN photo ON photo.id = 1 + (hashint8(stranger.id)::bigint & 2147483647) % (SELECT count(*) FROM photo)
        LEFT JOIN sketch ON stranger.id = number * 4 - 1" \
        -c 'CREATE INDEX nearest ON photo USING ivfexact (fused)' -c 'VACUUM ANALYZE'
}

# Counts the answers that differ. The incremental sort that orders ids of equal distance could also hide rows in the wrong order,
# so the distances are also compared without it.
differences() {
    on -c 'SET enable_indexscan = off' -c "CREATE TABLE exact AS SELECT * FROM answers('$(nearest ', id')', $exact)"
    on -c 'SET enable_seqscan = off' -c "SELECT plan('$(nearest '')'), count(*),
            count(*) FILTER (WHERE sorted.ids IS DISTINCT FROM exact.ids),
            count(*) FILTER (WHERE sorted.distances IS DISTINCT FROM exact.distances
                             OR alone.distances IS DISTINCT FROM exact.distances)
        FROM exact
        LEFT JOIN answers('$(nearest '')', $exact) AS alone USING (query)
        LEFT JOIN answers('$(nearest ', id')', $exact) AS sorted USING (query)"
}

printf '%-11s %8s %8s %10s %16s\n' set rows queries 'other ids' 'other distances'
all=0
for set in real photos clustered uniform duplicates equal wide; do
    note "set $set"
    fill "$set"
    read -r plan compared ids distances < <(differences)
    on -c "SELECT sketch_check_index('nearest')" >/dev/null
    [ "$plan" = index ] || { echo "$0: the planner reads set $set by \"$plan\"" >&2; exit 1; }
    printf '%-11s %8s %8s %10s %16s\n' "$set" "$(on -c 'SELECT count(*) FROM photo')" "$compared" "$ids" "$distances"
    all=$((all + ids + distances))
done
echo "$all differences"
[ "$all" = 0 ]
