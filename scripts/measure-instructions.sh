#!/usr/bin/env bash
# Instructions that a release daemon on the embedded default takes to ingest and to archive some records, by function,
# beside those of `zstd -9` over the same bytes. Unlike times they hardly differ from run to run.
#
#   scripts/measure-instructions.sh RECORDS.ndjson
#
# Wants valgrind (Debian: apt-get install valgrind), zstd, curl and python3. Some 50 times slower than without valgrind.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

RECORDS=${1:?a file of NDJSON records}
command -v valgrind >/dev/null || die "no valgrind here; Debian: apt-get install valgrind"
cargo build --quiet --release --bin logtier
LOGTIER=$TARGET/release/logtier WORK=$(mktemp -d) PORT=$(free_port)
URL=http://127.0.0.1:$PORT
export LOGTIER_DATA_DIR=$WORK/data LOGTIER_SERVER__LISTEN=127.0.0.1:$PORT LOGTIER_RETENTION__DEFAULT__HOT_FOR=0s
export LOGTIER_ARCHIVE__SCHEDULE="0 0 1 1 *" LOGTIER_ARCHIVE__MAX_DELAY=0s LOGTIER_LOG__LEVEL=warn

valgrind --tool=callgrind --callgrind-out-file="$WORK/counts" "$LOGTIER" serve >"$WORK/log" 2>&1 &
DAEMON=$!
trap 'kill $DAEMON 2>/dev/null || true; wait $DAEMON 2>/dev/null || true; rm -rf "$WORK"' EXIT
for _ in {1..120}; do
    curl -sf "$URL/api/v1/apps" >/dev/null && break
    sleep 0.5
done

# show FILE: the whole, then what each of the interesting functions took with all that it called.
show() {
    callgrind_annotate --inclusive=yes --threshold=100 "$1" |
        sed -nE 's/ +\[[^]]*\]$//; s/\?\?\?://; /PROGRAM TOTALS/p; /::decode_bulk$|Decoder::accept$|chunk::encode_with$|ZSTD_compress2$|sqlite3_step$|Dispatcher.*poll_catch$|filters::build$|chunk::decode$|zframe::decompress$|push_block::\{\{closure\}\}$|Replay::next::\{\{closure\}\}$/p'
}

callgrind_control -z $DAEMON >/dev/null 2>&1
"$LOGTIER" --url "$URL" bench --running ingest --rounds 1 --file "$RECORDS" >/dev/null
callgrind_control -d $DAEMON >/dev/null 2>&1
echo "ingest:"
show "$WORK/counts.1"

python3 - "$URL/api/v1" "$RECORDS" <<'PYTHON'
import json, sys, urllib.request
api, records = sys.argv[1:]
app = next(a for a in json.load(urllib.request.urlopen(api + "/apps"))["apps"] if a.startswith("bench"))
for instance in {json.loads(line)["instance"] for line in open(records)}:
    urllib.request.urlopen(urllib.request.Request(
        f"{api}/apps/{app}/instances/{instance}/finish", b'{"outcome":"succeeded"}', {"content-type": "application/json"}))
PYTHON
callgrind_control -z $DAEMON >/dev/null 2>&1
curl -sf -X POST "$URL/api/v1/archive?wait=600" >/dev/null
callgrind_control -d $DAEMON >/dev/null 2>&1
echo "archive:"
show "$WORK/counts.2"

echo "zstd -9, one stream:"
valgrind --tool=callgrind --callgrind-out-file="$WORK/zstd" zstd -9 -q -c "$RECORDS" 2>"$WORK/log" >/dev/null
sed -n 's/.*Collected : //p' "$WORK/log"
