#!/usr/bin/env bash
# A PowerJob's table of files into logtier: once with a kill in the middle, once more; every line once; the rate.
#
#   scripts/measure-import.sh [FILES, default 50000]
#
# On MariaDB, for PowerJob's tables and for the hot tier, and a folder. LOGTIER_TEST_MYSQL_URL names a server, else one
# is started. BINARY names a logtier, else the release build is made. PyMySQL is fetched from PyPI.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

FILES=${1:-50000}
WORK=$TARGET/measure-import
if [ -z "${BINARY:-}" ]; then
    cargo build --quiet --release
    BINARY=$TARGET/release/logtier
fi
rm -rf "$WORK"
mkdir -p "$WORK"
[ -d "$TOOLS/pymysql" ] || python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$TOOLS/pymysql" PyMySQL==1.1.1
export PYTHONPATH=$TOOLS/pymysql
if [ -z "${LOGTIER_TEST_MYSQL_URL:-}" ]; then
    LOGTIER_TEST_MYSQL_URL=$(scripts/mariadb.sh start)
    STOP_MARIADB=1
fi
cleanup() {
    [ -z "${DAEMON:-}" ] || { kill "$DAEMON" && wait "$DAEMON" || true; } 2>/dev/null
    [ -z "${STOP_MARIADB:-}" ] || scripts/mariadb.sh stop
}
trap cleanup EXIT

sql() { python3 -c 'import sys, urllib.parse as u, pymysql
w = u.urlsplit(sys.argv[1])
pymysql.connect(host=w.hostname, port=w.port, user=w.username, password=w.password or "").cursor().execute(sys.argv[2])' "$LOGTIER_TEST_MYSQL_URL" "$1"; }
# A file is one value of one statement when PowerJob stores it; the default of 16 MiB is too small for 50 MB.
sql "SET GLOBAL max_allowed_packet = 268435456"
POWERJOB=${LOGTIER_TEST_MYSQL_URL%/}/measure_powerjob
for database in measure_powerjob measure_logtier; do
    sql "DROP DATABASE IF EXISTS $database"
    sql "CREATE DATABASE $database CHARACTER SET utf8mb4"
done
python3 scripts/powerjob_fill.py fill "$POWERJOB" "$FILES" "$WORK/truth"

PORT=$(free_port)
export LOGTIER_URL=http://127.0.0.1:$PORT
env LOGTIER_DATA_DIR="$WORK/data" LOGTIER_SERVER__LISTEN="127.0.0.1:$PORT" LOGTIER_COLD__URL="file://$WORK/cold" \
    LOGTIER_HOT__URL="${LOGTIER_TEST_MYSQL_URL%/}/measure_logtier" LOGTIER_COLD__SHARED=true \
    LOGTIER_RETENTION__DEFAULT__COLD_FOR=forever "LOGTIER_ARCHIVE__SCHEDULE=0 0 1 1 *" \
    "$BINARY" serve 2>"$WORK/daemon.log" &
DAEMON=$!
for _ in {1..100}; do "$BINARY" status >/dev/null 2>&1 && break; sleep 0.2; done

IMPORT=("$BINARY" --app powerjob import powerjob --url "$POWERJOB" --journal "$WORK/journal")
"${IMPORT[@]}" --dry-run
"${IMPORT[@]}" >"$WORK/killed" 2>&1 &
KILLED=$!
touch "$WORK/journal"
while [ "$(wc -l <"$WORK/journal")" -lt $((FILES / 5)) ]; do sleep 0.2; done
kill -9 "$KILLED"
wait "$KILLED" 2>/dev/null || true
say "killed after $(wc -l <"$WORK/journal") lines of the journal; the same command again:"
"${IMPORT[@]}" 2>"$WORK/progress"
python3 scripts/powerjob_fill.py check "$LOGTIER_URL" "$WORK/truth"
say "the same command once more:"
"${IMPORT[@]}"
say "and without the journal, every line compared:"
"${IMPORT[@]}" --again
say "daemon's peak memory: $(awk '/VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$DAEMON/status")"
say "PowerJob's tables afterwards: $(python3 scripts/powerjob_fill.py checksums "$POWERJOB")"
