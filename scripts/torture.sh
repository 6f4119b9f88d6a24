#!/usr/bin/env bash
# Attacks the promises for as long as told, and shows a table of what was done and what broke.
#
#   scripts/torture.sh MINUTES [STAGE…]
#
# Stages, each for MINUTES; without names all of them, one after the other:
#
#   simulation  seeds against a model, on SQLite in memory (tests/it/simulation)
#   cluster     the same on MariaDB and S3
#   processes   three daemons that are killed, a database that is killed and cut off, a full disk (tests/it/torture)
#
# A stage is a function torture_NAME below that prints its table and fails where a promise was
# broken. LOGTIER_SEED=N cargo test --test it simulation replays a seed of the first.
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

STAGES=(simulation cluster processes)
OUT=$TARGET/torture

# A table is what stands between pipes; the whole output stays in OUT.
tables() { grep '^|\|^VIOLATION\|^LOGTIER_SEED' "$1"; }

# simulate NAME TEST: runs a test of tests/it for the minutes that were told.
simulate() {
    LOGTIER_TORTURE_MINUTES=$minutes cargo test --quiet --test it "$2" -- --nocapture --test-threads 1 >"$OUT/$1.log" 2>&1
    local status=$?
    tables "$OUT/$1.log"
    return "$status"
}

torture_simulation() { simulate simulation simulation::every_seed; }

# database: a private MariaDB, unless one is named.
database() {
    if [ -z "${LOGTIER_TEST_MYSQL_URL:-}" ]; then
        # Not that of `make test`, which may run beside it.
        export LOGTIER_TEST_MARIADB_DIR=${LOGTIER_TEST_MARIADB_DIR:-$OUT/mariadb}
        LOGTIER_TEST_MYSQL_URL=$(MARIADB_DURABLE=1 scripts/mariadb.sh start) || die "no MariaDB to be had"
        private_server=yes
        export LOGTIER_TEST_MYSQL_URL
    fi
}

torture_cluster() {
    database
    simulate cluster simulation::seeds_keep
}

torture_processes() {
    [ -z "${LOGTIER_TEST_MYSQL_URL:-}" ] || [ -n "$private_server" ] ||
        die "this stage kills the database: it wants one of its own, without LOGTIER_TEST_MYSQL_URL"
    database
    simulate processes torture::
}

# The server goes however this script ends.
private_server=
# shellcheck disable=SC2317,SC2329  # called by trap
finish() {
    [ -z "$private_server" ] || scripts/mariadb.sh stop
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

minutes=${1:-}
[[ $minutes =~ ^[0-9]+$ ]] || die "say for how many minutes: scripts/torture.sh 10"
shift
[ $# -gt 0 ] && STAGES=("$@")
mkdir -p "$OUT"
cargo test --quiet --no-run --test it || exit 1

status=0
for stage in "${STAGES[@]}"; do
    declare -F "torture_$stage" >/dev/null || die "there is no stage $stage"
    say "== $stage, $minutes min"
    "torture_$stage" || status=1
done
[ "$status" -eq 0 ] || note "promises were broken, or a stage did not run: see $OUT"
exit "$status"
