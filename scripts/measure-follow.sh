#!/usr/bin/env bash
# Many followers on one daemon: its memory, how soon they see a line, and what the database is asked.
#
#   scripts/measure-follow.sh [FOLLOWERS, default 5000] [ATTEMPTS, default 100] [SECONDS per phase, default 20]
#
#   BINARY=PATH   a daemon other than the release build, which is built first
#
# A private MariaDB (scripts/mariadb.sh) and a folder. Three phases: a line a second to every attempt with nobody
# watching, the same with all followers, and followers with nobody writing. Memory is VmRSS and VmHWM of the daemon's
# /proc/PID/status; queries are Com_select of the server, in the second phase less those of the first.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

FOLLOWERS=${1:-5000} ATTEMPTS=${2:-100} PHASE=${3:-20}
WORK=$TARGET/measure-follow
VENV=$TOOLS/measure
if [ -z "${BINARY:-}" ]; then
    cargo build --quiet --release
    BINARY=$TARGET/release/logtier
fi
if [ ! -x "$VENV/bin/python" ]; then
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-input pymysql </dev/null
fi
rm -rf "$WORK"
mkdir -p "$WORK"
ulimit -n "$((FOLLOWERS * 2 + 1000))" || die "the limit of open files is too low; raise it: ulimit -Hn"

export LOGTIER_TEST_MARIADB_DIR=$WORK/mariadb
DAEMON=
# shellcheck disable=SC2317,SC2329  # called by trap
finish() {
    [ -z "$DAEMON" ] || kill "$DAEMON" 2>/dev/null || true
    wait 2>/dev/null || true
    scripts/mariadb.sh stop
}
trap finish EXIT
MYSQL=$(scripts/mariadb.sh start)
"$VENV/bin/python" scripts/measure_follow.py database "$MYSQL"
PORT=$(free_port)
LOGTIER_DATA_DIR=$WORK/data LOGTIER_SERVER__LISTEN=127.0.0.1:$PORT LOGTIER_HOT__URL=${MYSQL%/}/follow \
    LOGTIER_COLD__URL=$WORK/cold LOGTIER_COLD__SHARED=true "$BINARY" serve >"$WORK/daemon.log" 2>&1 &
DAEMON=$!
"$VENV/bin/python" scripts/measure_follow.py run "$MYSQL" "$PORT" "$DAEMON" "$FOLLOWERS" "$ATTEMPTS" "$PHASE"
