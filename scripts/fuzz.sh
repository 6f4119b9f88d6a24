#!/usr/bin/env bash
# Hostile input for everything that reads bytes of strangers: no panic, bounded memory.
#
#   scripts/fuzz.sh MINUTES [TARGET…]
#
# Each target runs for MINUTES in a process of its own, two at a time (src/fuzzing.rs); "http" is
# scripts/schemathesis.sh, which takes the time that it takes and the arguments in ARGS.
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

TARGETS=(segment index index_pieces seek_table ndjson config http)
OUT=$TARGET/fuzz

minutes=${1:-}
[[ $minutes =~ ^[0-9]+$ ]] || die "say for how many minutes: scripts/fuzz.sh 10"
shift
[ $# -gt 0 ] && TARGETS=("$@")
mkdir -p "$OUT"
rm -f "$OUT"/*.log
cargo test --quiet --no-run --lib || exit 1

# fuzz TARGET: tries one target; its output stays in OUT.
fuzz() {
    LOGTIER_FUZZ_MINUTES=$minutes cargo test --quiet --lib -- --exact --nocapture "$(path "$1")" \
        >"$OUT/$1.log" 2>&1 || touch "$OUT/$1.failed"
}

# path TARGET: the test's full name.
path() {
    case $1 in
    ndjson) say "ingest::fuzz::fuzz_ndjson" ;;
    config) say "config::fuzz::fuzz_config" ;;
    *) say "cold::segment::fuzz::fuzz_$1" ;;
    esac
}

rm -f "$OUT"/*.failed
bytes=() http=
for target in "${TARGETS[@]}"; do
    if [ "$target" = http ]; then http=yes; else bytes+=("$target"); fi
done
for target in "${bytes[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    fuzz "$target" &
done
wait

say "| target | time | executions | answers | slowest | memory |"
say "| --- | ---: | ---: | ---: | ---: | ---: |"
status=0
for target in "${bytes[@]}"; do
    grep '^|' "$OUT/$target.log"
    if [ -e "$OUT/$target.failed" ]; then
        tail -20 "$OUT/$target.log" >&2
        status=1
    fi
done
if [ -n "$http" ]; then
    # shellcheck disable=SC2086  # several arguments
    scripts/schemathesis.sh ${ARGS:-} || status=1
fi
exit "$status"
