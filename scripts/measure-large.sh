#!/usr/bin/env bash
# One attempt of many GB through both tiers: how long it takes, and the daemon's peak memory.
#
#   scripts/measure-large.sh [MiB of text, default 2048]
#
# On the embedded default, with the release build; LOGTIER_HOT__URL and LOGTIER_COLD__URL point it
# at other tiers. Peak memory is VmHWM of the daemon's /proc/PID/status: the most it ever had resident.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

SIZE=${1:-2048}
WORK=$TARGET/measure-large
cargo build --quiet --release
BINARY=$TARGET/release/logtier
rm -rf "$WORK"
mkdir -p "$WORK"
PORT=$(free_port)
export LOGTIER_URL=http://127.0.0.1:$PORT

# Lines as a Java worker writes them, numbered, so that no two are equal.
lines() {
    python3 - "$1" <<'PY'
import sys, zlib
left = int(sys.argv[1]) << 20
words = ("fetch", "order", "retry", "commit", "timeout", "customer", "invoice", "ledger")
out, n = sys.stdout.buffer, 0
while left > 0:
    block = []
    for n in range(n, n + 5000):
        h = zlib.crc32(n.to_bytes(8, "little"))
        block.append(b"2026-11-22 10:%02d:%02d.%03d [worker-%d] INFO  c.e.billing.%sHandler - %s id=%08x took %d ms, attempt %d of 5"
            % (n // 60000 % 60, n // 1000 % 60, n % 1000, h % 8, words[h % 8].title().encode(), words[h >> 3 & 7].encode(), h, h >> 20, n))
    text = b"\n".join(block) + b"\n"
    n += 1
    left -= len(text)
    out.write(text)
PY
}

peak() { awk '/VmHWM/ { printf "%.0f MiB\n", $2 / 1024 }' "/proc/$DAEMON/status"; }
# timed WHAT COMMAND…: what it took, on stderr, so that the command's own output stays its own.
timed() {
    local what=$1 began=$EPOCHREALTIME
    shift
    "$@"
    awk -v a="$began" -v b="$EPOCHREALTIME" -v what="$what" -v peak="$(peak)" \
        'BEGIN { printf "%-20s %7.1f s   peak so far %s\n", what, b - a, peak }' >&2
}

env LOGTIER_DATA_DIR="$WORK/data" LOGTIER_SERVER__LISTEN="127.0.0.1:$PORT" LOGTIER_RETENTION__DEFAULT__HOT_FOR=0s \
    LOGTIER_ARCHIVE__PURGE_GRACE=0s "LOGTIER_ARCHIVE__SCHEDULE=0 0 1 1 *" "$BINARY" serve 2>"$WORK/daemon.log" &
DAEMON=$!
trap 'kill $DAEMON 2>/dev/null || true; wait $DAEMON 2>/dev/null || true' EXIT
for _ in {1..100}; do "$BINARY" status >/dev/null 2>&1 && break; sleep 0.1; done

lines "$SIZE" >"$WORK/large.log"
say "$(wc -c <"$WORK/large.log") bytes, $(wc -l <"$WORK/large.log") lines in one attempt; resident before: $(peak)"
timed push "$BINARY" push large "$WORK/large.log"
"$BINARY" finish large
timed "read hot" "$BINARY" logs large >"$WORK/hot"
cmp "$WORK/large.log" "$WORK/hot" && say "from the hot tier: the same bytes"
timed archive "$BINARY" archive --wait 60m
timed "read cold" "$BINARY" logs large >"$WORK/cold"
cmp "$WORK/large.log" "$WORK/cold" && say "from the cold tier: the same bytes"
find "$WORK/data/cold" -name '*.zst' -printf '%s\n' | awk '{ n++; s += $1 } END { printf "%d objects, %d bytes\n", n, s }'
say "peak resident memory of the daemon: $(peak)"
rm -rf "$WORK"
