#!/usr/bin/env bash
# Every test, on SQLite and a folder and on MariaDB and S3: what `make test` and CI run.
#
#   scripts/test.sh [ARGUMENTS OF cargo test…]
#
#   LOGTIER_TEST_MYSQL_URL=…    any server that speaks MySQL's protocol; no MariaDB is started then
#   LOGTIER_TEST_S3_ENDPOINT=…  any S3, with …_BUCKET, …_ACCESS_KEY_ID, …_SECRET_ACCESS_KEY; else one in process
#   LOGTIER_TEST_REQUIRE=mysql  fail, rather than skip, where no such server is to be had (CI)
#   MARIADB_DURABLE=1           the private MariaDB syncs every commit
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

OUT=$TARGET/test-report
LOG=$OUT/cargo-test.log
export LOGTIER_TEST_SKIPS=$OUT/skipped
mkdir -p "$OUT"
rm -f "$LOG" "$LOGTIER_TEST_SKIPS" "$OUT/summary"
started=$SECONDS

# The server goes however this script ends: tests failed, Ctrl-C, a terminal closed.
private_server=
# shellcheck disable=SC2317,SC2329  # called by trap
finish() {
    if [ -n "$private_server" ]; then
        scripts/mariadb.sh stop
    fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

locked=()
[ "${CI:-}" = true ] && locked=(--locked)

say "== build the tests (the first time 4 to 8 minutes on two cores)"
quiet=(--quiet)
[ -t 1 ] && quiet=() # a person wants to see that it gets on
cargo test "${locked[@]}" --no-run "${quiet[@]}" || exit 1

mysql=
if [ -n "${LOGTIER_TEST_MYSQL_URL:-}" ]; then
    mysql="the server of LOGTIER_TEST_MYSQL_URL"
else
    say "== start a private MariaDB"
    private_server=yes # from here on: a start that fails half-way leaves something to remove
    if url=$(scripts/mariadb.sh start); then
        export LOGTIER_TEST_MYSQL_URL=$url
        mysql="MariaDB $(cat "${LOGTIER_TEST_MARIADB_DIR:-$TARGET/test-mariadb}/version"), private, stopped and removed"
        say "$url"
    elif [ "${LOGTIER_TEST_REQUIRE:-}" = mysql ]; then
        die "no MySQL server to test on, and LOGTIER_TEST_REQUIRE=mysql"
    fi
fi
if [ -n "${LOGTIER_TEST_S3_ENDPOINT:-}" ]; then
    s3="the server of LOGTIER_TEST_S3_ENDPOINT"
else
    s3="a server in the test process"
fi

say "== run the tests"
testing=$SECONDS
cargo test "${locked[@]}" --no-fail-fast "$@" 2>&1 | tee "$LOG"
status=${PIPESTATUS[0]}

# "test result: ok. 5 passed; 0 failed; 1 ignored; …", one line for each test binary
read -r passed failed ignored < <(awk '/^test result: / {
    for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1); if ($i ~ /^ignored/) g += $(i-1) }
} END { print p + 0, f + 0, g + 0 }' "$LOG")
skips=0
[ -f "$LOGTIER_TEST_SKIPS" ] && skips=$(wc -l <"$LOGTIER_TEST_SKIPS")

{
    say ""
    say "== summary"
    say "tests    $passed passed, $failed failed, in $((SECONDS - testing)) s (all: $((SECONDS - started)) s)"
    say "SQLite   built in"
    say "MySQL    ${mysql:-not run: no mariadbd here and none could be fetched, see above}"
    say "S3       $s3"
    if [ "$ignored" -gt 0 ]; then
        say "skipped  $ignored marked #[ignore], with the reason beside each:"
        sed -n 's/^test \(.*\) \.\.\. ignored\(.*\)/           \1\2/p' "$LOG"
    fi
    if [ "$skips" -gt 0 ]; then
        say "skipped  $skips for what is missing here:"
        sort -u "$LOGTIER_TEST_SKIPS" | sed 's/^/           /'
    fi
    if [ "$ignored" -eq 0 ] && [ "$skips" -eq 0 ]; then
        say "skipped  nothing"
    fi
    if [ "$failed" -gt 0 ]; then
        say "failed:"
        sed -n 's/^test \(.*\) \.\.\. FAILED$/           \1/p' "$LOG"
    elif [ "$status" -ne 0 ]; then
        say "cargo test ended with status $status; its output is in $LOG"
        failed=1
    fi
    say "$passed passed, $failed failed, $((ignored + skips)) skipped"
} | tee "$OUT/summary"
exit "$status"
