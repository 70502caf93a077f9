# The part of index.sh that measures speed, build and size. Each size has its own database with a schema for each index, each with
# the tables "photo" and "query".
# shellcheck shell=bash disable=SC2154

declare -A type=([ivfexact]=embedding [hnsw]='halfvec(512)' [vchordrq]='halfvec(512)')
declare -A using=([ivfexact]='ivfexact (fused)' [hnsw]='hnsw (fused halfvec_l2_ops)'
    [vchordrq]='vchordrq (fused halfvec_l2_ops) WITH (options = $$residual_quantization = true
build.internal.lists = [LISTS]$$)')
declare -A extension=([hnsw]=vector [vchordrq]=vchord)
# What trades recall for speed, and the values to try, the fastest first.
declare -A knob=([ivfexact]=pg_sketch.recall [hnsw]=hnsw.ef_search [vchordrq]=vchordrq.probes)
declare -A efforts=([ivfexact]='0.8 0.85 0.9 0.95 0.98 0.99 0.995 0.999 1'
    [hnsw]='10 20 40 80 120 160 240 320 480 640 800 1000' [vchordrq]='1 2 3 5 7 10 15 20 30 40 60 80 160')
# Number of queries for statements that take longer than the nearest ten.
few=$((queries < 20 ? queries : 20))

# on N INDEX ARGUMENT...
on() { sql "n$1" -c "SET search_path = $2, public" "${@:3}"; }
# figure N INDEX WHAT VALUE
figure() { on "$1" "$2" -c "INSERT INTO figure VALUES ('$3', '$2', $4) ON CONFLICT (what, index) DO UPDATE SET value = $4"; }
figure_of() { on "$1" "$2" -c "SELECT value FROM figure WHERE (what, index) = ('$3', '$2')"; }
# nearest [TAIL] [WHERE]: the statement for query $1
nearest() {
    echo "SELECT id, fused <-> (SELECT fused FROM query WHERE id = \$1) AS distance
        FROM photo ${2:-} ORDER BY distance ${1:-}"
}
minus() { awk -v a="$1" -v b="$2" 'BEGIN { print a - b }'; }
# CPU seconds of the server's processes that have ended.
cpu_seconds() {
    # The last one may still be ending.
    sleep 0.5
    sed 's/.*) //' "/proc/$(head -1 "$dir/data/postmaster.pid")/stat" |
        awk -v hertz="$(getconf CLK_TCK)" '{ print ($14 + $15) / hertz }'
}

# fill N: fills the database of N photos, unless it is filled already. A comment on each schema records what filled it.
fill() {
    local ours peer
    peer="pgvector, embeddings $(basename "$cache")"
    ours="pg_sketch $(cat "$("$pg_config" --sharedir)"/extension/pg_sketch--*.sql | cksum), embeddings $(basename "$cache")"
    [ "$(sql postgres -c "SELECT count(*) FROM pg_database WHERE datname = 'n$1'")" = 1 ] ||
        sql postgres -c "CREATE DATABASE n$1"
    sql "n$1" -f "$here/index.sql"
    # Another build may have different SQL under the same version. Dropping the extension drops the columns of its type, too.
    if [ "$(filled_by "$1" ivfexact)" != "$ours" ]; then
        note "$1 rows: filling the table of ivfexact"
        make_schema "$1" ivfexact 'DROP EXTENSION IF EXISTS pg_sketch CASCADE; CREATE EXTENSION pg_sketch'
        # A table that is truncated and filled in one transaction needs no WAL.
        make_set photos "$1" 1 | on "$1" ivfexact --single-transaction -c 'TRUNCATE photo' \
            -c 'COPY photo (id, fused) FROM STDIN BINARY'
        # Shuffled, because the sketches are sorted by class.
        on "$1" ivfexact -c 'CREATE TEMP TABLE sketch (number serial, fused embedding)' \
            -c 'COPY sketch (fused) FROM STDIN BINARY' \
            -c 'INSERT INTO query SELECT row_number() OVER (ORDER BY hashint4(number), number), fused FROM sketch' \
            <"$cache/sketch.copy"
        on "$1" ivfexact -c 'VACUUM (FREEZE, ANALYZE) photo, query' -c "COMMENT ON SCHEMA ivfexact IS '$ours'"
    fi
    local index
    for index in hnsw vchordrq; do
        if has $index && [ "$(filled_by "$1" $index)" != "$peer" ]; then
            note "$1 rows: filling the table of $index"
            make_schema "$1" $index "CREATE EXTENSION IF NOT EXISTS ${extension[$index]} CASCADE"
            on "$1" $index --single-transaction -c 'TRUNCATE photo' \
                -c 'INSERT INTO photo (id, fused) SELECT id, fused::real[]::halfvec FROM ivfexact.photo'
            on "$1" $index -c 'INSERT INTO query SELECT id, fused::real[]::halfvec FROM ivfexact.query' \
                -c 'VACUUM (FREEZE, ANALYZE) photo, query' -c "COMMENT ON SCHEMA $index IS '$peer'"
        fi
    done
}
filled_by() { sql "n$1" -c "SELECT obj_description(to_regnamespace('$2')::oid, 'pg_namespace')"; }
# make_schema N INDEX EXTENSION; "part" is a hash of the id from 0 to 9999.
make_schema() {
    sql "n$1" -c 'SET client_min_messages = warning' -c "DROP SCHEMA IF EXISTS $2 CASCADE" -c "$3" -c "CREATE SCHEMA $2
        CREATE TABLE photo (id bigint, fused ${type[$2]},
                            part integer GENERATED ALWAYS AS ((hashint8(id) & 2147483647) % 10000) STORED)
        CREATE TABLE query (id integer PRIMARY KEY, fused ${type[$2]})"
}

# build N INDEX: builds the index; HNSW only if it does not exist yet.
build() {
    local before started seconds
    [ "$2" = ivfexact ] || [ -z "$(figure_of "$1" "$2" 'build, s')" ] || return 0
    note "$1 rows: building $2"
    on "$1" "$2" -c 'SET client_min_messages = warning' -c 'DROP INDEX IF EXISTS nearest' -c CHECKPOINT
    before=$(cpu_seconds) started=$(date +%s.%N)
    on "$1" "$2" -c "CREATE INDEX nearest ON photo USING ${using[$2]/LISTS/$(awk -v n="$1" 'BEGIN { printf "%d", 2 * sqrt(n) }')}"
    seconds=$(minus "$(date +%s.%N)" "$started")
    figure "$1" "$2" 'build, CPU s' "$(minus "$(cpu_seconds)" "$before")"
    figure "$1" "$2" 'load average after the build' "$(cut -d' ' -f1 /proc/loadavg)"
    figure "$1" "$2" 'size, MB' "$(on "$1" "$2" -c "SELECT pg_relation_size('nearest') / 1e6")"
    figure "$1" "$2" 'build, s' "$seconds"
}

# find_exact N INDEX: stores the answers of the sequential scan.
find_exact() {
    [ "$(on "$1" "$2" -c "SELECT to_regclass('$2.exact_$queries')")" = '' ] || return 0
    note "$1 rows: exact answers of $2's table"
    on "$1" "$2" -c 'SET enable_indexscan = off' \
        -c "CREATE TABLE exact_$queries AS SELECT * FROM answers('$(nearest 'LIMIT 10')', $queries)"
}

# recall_at N INDEX EFFORT
recall_at() {
    on "$1" "$2" -c "SET ${knob[$2]} = $3" -c 'SET enable_seqscan = off' -c "SELECT avg(recall(exact.ids, found.ids))
        FROM exact_$queries AS exact JOIN answers('$(nearest 'LIMIT 10')', $queries) AS found USING (query)"
}
# find_efforts N INDEX: stores the recall of every effort up to the first that finds all but one in 500.
find_efforts() {
    local effort found
    on "$1" "$2" -c "DELETE FROM effort WHERE index = '$2'"
    for effort in ${efforts[$2]}; do
        found=$(recall_at "$1" "$2" "$effort")
        on "$1" "$2" -c "INSERT INTO effort VALUES ('$2', $effort, $found, NULL)"
        ! awk -v found="$found" 'BEGIN { exit found < 0.998 }' || [ "$2" = ivfexact ] || break
    done
}
# effort_for N INDEX RECALL: the least effort of this recall; nothing if there is none.
effort_for() { on "$1" "$2" -c "SELECT min(effort) FROM effort WHERE index = '$2' AND reaches(effort.*, $3)"; }
# find_effort N: the least ef_search of recall 0.99, or the greatest, for statements other than the nearest ten.
find_effort() {
    figure "$1" hnsw ef_search "$(on "$1" hnsw -c "SELECT coalesce(min(effort) FILTER (WHERE recall >= 0.99), max(effort))
        FROM effort WHERE index = 'hnsw'")"
    figure "$1" hnsw 'recall of the nearest 10' "$(on "$1" hnsw -c "SELECT recall FROM effort
        WHERE index = 'hnsw' AND effort = (SELECT value FROM figure WHERE (what, index) = ('ef_search', 'hnsw'))")"
}
# measure_efforts N INDEX: queries per second of one client at the least effort of each recall.
measure_efforts() {
    local level effort rate
    for level in 0.9 0.95 0.98 0.99 1; do
        effort=$(effort_for "$1" "$2" $level)
        [ -n "$effort" ] || continue
        note "$1 rows: $2 at recall $level, ${knob[$2]} = $effort"
        rate=$(bench "$1" "$2" 1 "$duration" "$effort" >/dev/null; bench "$1" "$2" 1 "$duration" "$effort" | cut -d' ' -f1)
        on "$1" "$2" -c "UPDATE effort SET rate = $rate WHERE index = '$2' AND effort = $effort"
    done
}

# check_exact N: counts answers of the index that differ from the sequential scan's. The incremental sort that orders ids of equal
# distance could also hide rows in the wrong order, so the distances are also compared without it.
check_exact() {
    local plan wrong='' alone sorted tie
    plan=$(on "$1" ivfexact -c "SELECT plan('$(nearest 'LIMIT 10')')")
    [ "$plan" = index ] || { echo "$0: the planner does not choose the index at $1 rows" >&2; exit 1; }
    for tie in '' ', id'; do
        wrong+=" $(on "$1" ivfexact -c "SELECT count(*) FROM answers('$(nearest "$tie LIMIT 10")', $queries) AS found
            JOIN exact_$queries AS exact USING (query)
            WHERE found.distances IS DISTINCT FROM exact.distances
               OR '$tie' <> '' AND found.ids IS DISTINCT FROM exact.ids")"
    done
    read -r alone sorted <<<"$wrong"
    echo "$1 rows, $queries queries: $alone answers with other distances, $sorted with other ids"
    figure "$1" ivfexact 'recall of the nearest 10' "$(on "$1" ivfexact -c "SELECT avg(recall(exact.ids, found.ids))
        FROM exact_$queries AS exact JOIN answers('$(nearest ', id LIMIT 10')', $queries) AS found USING (query)")"
    on "$1" ivfexact -c "INSERT INTO figure SELECT 'visited a query: ' || visited, 'ivfexact', avg(value)
        FROM visits('$(nearest 'LIMIT 10')', $queries),
            LATERAL (VALUES ('lists', lists), ('rows', rows), ('refined', refined), ('pages', pages)) AS visited (visited, value)
        GROUP BY visited.visited ON CONFLICT (what, index) DO UPDATE SET value = excluded.value"
    on "$1" ivfexact -c "SELECT sketch_check_index('nearest')" >/dev/null
}

# bench N INDEX CLIENTS SECONDS [EFFORT]: prints queries per second, and queries per CPU second of the server.
bench() {
    local before effort=${5:-} sketches
    sketches=$(on "$1" "$2" -c 'SELECT count(*) FROM query')
    [ -n "$effort" ] || case $2 in
        ivfexact) effort=1 ;;
        hnsw) effort=$(figure_of "$1" hnsw ef_search) ;;
        *) effort=$(effort_for "$1" "$2" 0.99) effort=${effort:-${efforts[$2]##* }} ;;
    esac
    before=$(cpu_seconds)
    PGOPTIONS="-c search_path=$2,public -c ${knob[$2]}=$effort -c enable_seqscan=off" "$bin/pgbench" --no-vacuum --protocol prepared \
        --define queries="$sketches" --file "$here/index.pgbench" \
        --client "$3" --jobs "$3" --time "$4" "${url/\/postgres?//n$1?}" >"$dir/pgbench.log"
    awk -v cpu="$(minus "$(cpu_seconds)" "$before")" '
        /^number of transactions actually processed/ { split($NF, count, "/") }
        /^tps/ { print $3, count[1] / cpu }' "$dir/pgbench.log"
}

# measure_speed N
measure_speed() {
    local index clients round
    rm -f "$dir"/rates.*
    for clients in 1 2; do
        for round in $(seq 0 "$rounds"); do
            note "$1 rows: queries of $clients clients, round $round of $rounds"
            for index in $indexes; do
                # The first run is a warm-up.
                bench "$1" "$index" "$clients" "$duration" >"$dir/rate"
                [ "$round" = 0 ] || cat "$dir/rate" >>"$dir/rates.$index.$clients"
            done
        done
        for index in $indexes; do
            figure "$1" "$index" "queries/s, $clients clients" "$(cut -d' ' -f1 "$dir/rates.$index.$clients" | median)"
            figure "$1" "$index" "queries/CPU s, $clients clients" "$(cut -d' ' -f2 "$dir/rates.$index.$clients" | median)"
        done
    done
}

# settings SETTING N
settings() {
    case $1 in
    'no index') echo 'SET enable_indexscan = off' ;;
    index) echo 'SET enable_seqscan = off' ;;
    'default limits')
        echo "SET hnsw.ef_search = $(figure_of "$2" hnsw ef_search)
            ; SET hnsw.iterative_scan = strict_order; SET enable_seqscan = off"
        ;;
    'no limits')
        echo "$(settings 'default limits' "$2")
            ; SET hnsw.max_scan_tuples = 2147483647; SET hnsw.scan_mem_multiplier = 1000"
        ;;
    esac
}
# settings_of INDEX: names of the settings to try.
settings_of() {
    case $1 in
    ivfexact) printf '%s\n' 'no index' 'as planned' index ;;
    hnsw) printf '%s\n' 'default limits' 'no limits' ;;
    esac
}

# try N INDEX NAME TAIL WHERE: measures a statement with the index and without.
try() {
    local statement count setting
    statement=$(nearest "$4" "$5")
    while read -r setting; do
        # Without limits, it reads all of a large index.
        count=$([ "$setting" = 'no limits' ] && echo $((few < 5 ? few : 5)) || echo "$few")
        on "$1" "$2" -c 'SET enable_indexscan = off' \
            -c "CREATE TEMP TABLE exact AS SELECT * FROM answers('$statement', $count)" \
            -c 'RESET enable_indexscan' -c "$(settings "$setting" "$1")" <<SQL -f -
INSERT INTO trial SELECT '$3', '$2', '$setting', plan('$statement'),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY found.ms),
    avg(coalesce(cardinality(found.ids), 0)), avg(coalesce(cardinality(exact.ids), 0)),
    avg(recall(exact.ids, found.ids)),
    count(*) FILTER (WHERE found.distances IS DISTINCT FROM exact.distances) || ' of ' || count(*)
FROM answers('$statement', $count) AS found JOIN exact USING (query);
SQL
    done < <(settings_of "$2")
}

# try_all N INDEX: measures a cursor over all rows.
try_all() {
    local statement setting
    statement=$(nearest)
    while read -r setting; do
        on "$1" "$2" -c 'SET enable_indexscan = off' -c "CREATE TEMP TABLE exact AS SELECT * FROM walk('$statement', 1)" \
            -c 'RESET enable_indexscan' -c "$(settings "$setting" "$1")" <<SQL -f -
INSERT INTO trial SELECT 'cursor over all', '$2', '$setting', plan('DECLARE nearest CURSOR FOR $statement'), found.ms, found.rows, exact.rows,
    NULL, ((found.distances, found.ids) <> (exact.distances, exact.ids))::text
FROM walk('$statement', 1) AS found, exact;
SQL
    done < <(settings_of "$2")
}

# measure_trials N: measures WHERE, a large LIMIT, and all rows.
measure_trials() {
    local index name tail where
    sql "n$1" -c 'TRUNCATE trial'
    for index in $indexes; do
        [ "$index" != vchordrq ] || continue
        while IFS='|' read -r name tail where; do
            note "$1 rows: $name, $index"
            try "$1" "$index" "$name" "$tail" "$where"
        done <<'TRIALS'
LIMIT 10 of 1 %|LIMIT 10|WHERE part < 100
LIMIT 10 of 0.01 %|LIMIT 10|WHERE part = 4711
LIMIT 1000|LIMIT 1000|
TRIALS
        if [ "$1" -le 200000 ]; then
            note "$1 rows: a cursor over all rows, $index"
            try_all "$1" "$index"
        fi
    done
}

# report N: prints the tables.
report() {
    "$bin/psql" --no-psqlrc --quiet --pset pager=off --pset footer=off --variable ON_ERROR_STOP=1 \
        "${url/\/postgres?//n$1?}" <<SQL
\echo $1 rows
SELECT what AS figure, round(ours::numeric, 3) AS ivfexact, round(peer::numeric, 3) AS hnsw,
    round((CASE WHEN what LIKE 'queries%' THEN ours / peer
                WHEN what ~ '^(build|size)' THEN peer / ours END)::numeric, 3) AS "times better"
FROM (SELECT what, max(value) FILTER (WHERE index = 'ivfexact') AS ours, max(value) FILTER (WHERE index = 'hnsw') AS peer
      FROM figure GROUP BY what) AS figures
ORDER BY what;
SELECT least, index, CASE WHEN effort IS NULL THEN 'not reached' ELSE index || ' ' || effort END AS effort,
    round(recall::numeric, 4) AS recall, round(rate::numeric) AS "queries/s",
    round((max(rate) FILTER (WHERE index = 'ivfexact') OVER (PARTITION BY least) / rate)::numeric, 2) AS "ivfexact is faster by"
FROM (VALUES (0.9), (0.95), (0.98), (0.99), (1)) AS level (least)
    CROSS JOIN (SELECT DISTINCT index FROM effort) AS indexes
    LEFT JOIN LATERAL (SELECT effort, recall, rate FROM effort
                       WHERE effort.index = indexes.index AND reaches(effort.*, least) ORDER BY effort LIMIT 1) AS reached ON true
ORDER BY least, index DESC;
SELECT trial, index, setting, plan, round(ms::numeric, 2) AS "median ms", round(rows::numeric, 1) AS rows,
    round(expected::numeric, 1) AS "should be", round(recall::numeric, 3) AS recall, wrong
FROM trial ORDER BY trial, index DESC, setting;
SQL
}

for n in ${sizes//,/ }; do fill "$n"; done
for n in ${sizes//,/ }; do
    for index in $indexes; do
        build "$n" "$index"
        find_exact "$n" "$index"
        find_efforts "$n" "$index"
    done
    ! has hnsw || find_effort "$n"
    ! has ivfexact || check_exact "$n"
    for index in $indexes; do measure_efforts "$n" "$index"; done
    [ -z "${TRIALS-1}" ] || measure_speed "$n"
    [ -z "${TRIALS-1}" ] || measure_trials "$n"
done
sql postgres -c 'SELECT version()'
sql "n$n" -c "SELECT extname, extversion FROM pg_extension WHERE extname IN ('pg_sketch', 'vector')"
for n in ${sizes//,/ }; do report "$n"; done
