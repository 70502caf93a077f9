#!/usr/bin/env bash
# A private PostgreSQL cluster on a Unix socket, for the demo, tests and benchmarks.
#
#   tests/cluster.sh start DIR   creates the cluster if necessary, starts it, prints its connection string
#   tests/cluster.sh stop DIR    stops it and keeps the data
#   tests/cluster.sh kill DIR    kills all its processes at once, and keeps the data
#   tests/cluster.sh remove DIR  stops it and removes DIR
#   tests/cluster.sh url DIR     prints the connection string
#
# PG_CONFIG selects the PostgreSQL to run; SETTINGS holds additional lines of postgresql.conf, INITDB options of initdb.
# POSTGRES is a program to start in place of the server's. CHECKSUMS=off: pages of a new cluster have none, in any version.
# If run by root, the server runs as user postgres, who must be able to reach DIR.
set -euo pipefail

command=$1
dir=$(realpath -m "$2")
bindir=$("${PG_CONFIG:-pg_config}" --bindir)

as_server() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u postgres -- env -u RUST_BACKTRACE "$@")
    else
        env -u RUST_BACKTRACE "$@"
    fi
}

running() {
    as_server "$bindir/pg_ctl" -D "$dir/data" status >/dev/null 2>&1
}

make_cluster() {
    mkdir -p "$dir"
    [ "$(id -u)" != 0 ] || chown postgres "$dir"
    local checksums=
    # From 18 on, there are checksums unless told otherwise.
    if [ "${CHECKSUMS:-}" = off ] && as_server "$bindir/initdb" --help | grep no-data-checksums >/dev/null; then checksums=--no-data-checksums; fi
    as_server "$bindir/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C $checksums ${INITDB:-} >"$dir/initdb.log" 2>&1 ||
        { cat "$dir/initdb.log" >&2; exit 1; }
    cat >>"$dir/data/postgresql.conf" <<EOF
listen_addresses = ''
unix_socket_directories = '$dir'
unix_socket_permissions = 0777
fsync = off
max_wal_size = 4GB
${SETTINGS:-}
EOF
}

case $command in
start)
    [ -f "$dir/data/PG_VERSION" ] || make_cluster
    running || as_server "$bindir/pg_ctl" -D "$dir/data" ${POSTGRES:+-p "$POSTGRES"} -l "$dir/server.log" -w start >/dev/null ||
        { tail "$dir/server.log" >&2; exit 1; }
    ;;
stop)
    ! running || as_server "$bindir/pg_ctl" -D "$dir/data" -m fast -w stop >/dev/null
    exit
    ;;
kill)
    postmaster=$(head -1 "$dir/data/postmaster.pid")
    # The postmaster stops before they are counted, so that it starts no other, and dies last, so that none sees it die.
    kill -STOP "$postmaster"
    children=$(grep -l "^PPid:[[:space:]]*$postmaster\$" /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3 || true)
    kill -9 $children "$postmaster" 2>/dev/null || true
    for process in $postmaster $children; do
        while kill -0 "$process" 2>/dev/null; do sleep 0.05; done
    done
    exit
    ;;
remove)
    ! running || as_server "$bindir/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
    rm -rf "$dir"
    exit
    ;;
url) ;;
*)
    echo "usage: tests/cluster.sh start|stop|kill|remove|url DIR" >&2
    exit 2
    ;;
esac
echo "postgresql:///postgres?host=$dir&user=postgres"
