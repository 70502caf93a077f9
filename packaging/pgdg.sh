#!/bin/sh
# Adds the package repository of the PostgreSQL project to a Debian or Ubuntu, for versions that the system lacks.
set -eu
[ "$(id -u)" = 0 ] || exec sudo "$0"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql-common ca-certificates
/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y
