#!/usr/bin/env bash
# What reads of the cold tier fetch and decompress, beside what reading everything would need.
#
#   scripts/measure-reads.sh [MB of records, default 1000]
#
# The records are those of LOGTIER_TEST_RECORDS (NDJSON, default tests/data/records.ndjson) again and again, with
# other digits and other instances each time, and one attempt of 200 MB made of the same messages, of which two
# are errors. On the embedded default, with the release build, both tiers on one disk.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

SIZE=${1:-1000}
RECORDS=${LOGTIER_TEST_RECORDS:-tests/data/records.ndjson}
WORK=$TARGET/measure-reads
BINARY=${LOGTIER_BINARY:-$TARGET/release/logtier}
[ -n "${LOGTIER_BINARY:-}" ] || cargo build --quiet --release
rm -rf "$WORK"
mkdir -p "$WORK"
PORT=$(free_port)
export LOGTIER_URL=http://127.0.0.1:$PORT

start() {
    env LOGTIER_DATA_DIR="$WORK/data" LOGTIER_SERVER__LISTEN="127.0.0.1:$PORT" LOGTIER_RETENTION__DEFAULT__HOT_FOR=0s \
        LOGTIER_ARCHIVE__PURGE_GRACE=0s "LOGTIER_ARCHIVE__SCHEDULE=0 0 1 1 *" "$BINARY" serve 2>>"$WORK/daemon.log" &
    DAEMON=$!
    for _ in {1..100}; do "$BINARY" status >/dev/null 2>&1 && return; sleep 0.1; done
    die "the daemon did not start: see $WORK/daemon.log"
}
stop() { kill "$DAEMON" 2>/dev/null && wait "$DAEMON" 2>/dev/null || true; }
trap stop EXIT

start
python3 scripts/measure_reads.py fill "$PORT" "$RECORDS" "$SIZE"
"$BINARY" archive --wait 60m >/dev/null
find "$WORK/data/cold" -name '*.zst' -printf '%s\n' | awk '{ n++; s += $1 } END { printf "%d objects, %d bytes\n", n, s }'
# A daemon that knows nothing yet.
stop
start
python3 scripts/measure_reads.py read "$PORT"
say "peak resident memory of the daemon: $(awk '/VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$DAEMON/status")"
stop
rm -rf "$WORK"
