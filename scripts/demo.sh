#!/usr/bin/env bash
# The main job on a bare machine, in a minute after the build: real logs go in, are read from the hot tier, are
# archived, and are read again from the cold tier, the same bytes. `make demo` runs it.
#
#   KEEP=1   leave the daemon up at the end
#
# Writes nothing outside target/demo but the build itself in target/.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

DEMO=$TARGET/demo
DAEMON=
OK=no

stop_daemon() {
    [ -n "$DAEMON" ] || return 0
    kill "$DAEMON" 2>/dev/null || true # SIGTERM: it drains
    for _ in {1..150}; do
        kill -0 "$DAEMON" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$DAEMON" 2>/dev/null || true
}

# shellcheck disable=SC2317,SC2329  # called by trap
finish() {
    if [ "$OK" != yes ]; then
        note ""
        note "The demo did not come to its end. The daemon's own words are in $DEMO/daemon.log; the last of them:"
        tail -n 15 "$DEMO/daemon.log" >&2 2>/dev/null || true
        stop_daemon
    elif [ "${KEEP:-}" = "" ] || [ "${KEEP:-}" = 0 ]; then
        stop_daemon
    fi
}

BOLD='' PLAIN=''
[ -t 1 ] && BOLD=$'\033[1m' PLAIN=$'\033[0m'
step() { printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"; }

# show COMMAND…: the command as a person would type it, then what it says.
show() {
    printf '$ %s\n' "$*"
    "$@"
}

logtier() { "$BINARY" "$@"; }

# ready: whether the daemon answers GET /readyz with 200. (curl is not on every machine.)
ready() {
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$PORT" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    IFS= read -r -t 5 answer <&3 || answer=
    exec 3>&-
    [[ $answer == *" 200 "* ]]
} 2>/dev/null

# demo/logs/APP/JOB-INSTANCE.log
app_of() { basename "$(dirname "$1")"; }
job_of() { local name=${1##*/} && name=${name%.log} && printf '%s\n' "${name%-*}"; }
instance_of() { local name=${1##*/} && name=${name%.log} && printf '%s\n' "${name##*-}"; }

# read_all FOLDER: every log as the reader gives it.
read_all() {
    mkdir -p "$1"
    for file in "${LOGS[@]}"; do
        logtier logs "$(instance_of "$file")" --app "$(app_of "$file")" >"$1/$(app_of "$file")-$(instance_of "$file")"
    done
}

# ---------------------------------------------------------------------------------------------------------------

# Settings of this shell would change what is shown.
for name in ${!LOGTIER_@}; do unset "$name"; done
LOGS=(demo/logs/*/*.log)

step "Build"
if [ -x "$TARGET/debug/logtier" ]; then
    say "(only what changed)"
else
    say "The first build takes 4 to 8 minutes on two cores; the demo itself about 10 seconds."
fi
cargo build --quiet --bin logtier
BINARY=$TARGET/debug/logtier

# A daemon that an earlier KEEP=1 left up would keep the folder's lock.
if [ -f "$DEMO/daemon.pid" ]; then
    OLD=$(cat "$DEMO/daemon.pid")
    if [ "$(readlink "/proc/$OLD/exe" 2>/dev/null)" = "$(readlink -f "$BINARY")" ]; then
        say "(stopping the daemon of the last demo, process $OLD)"
        DAEMON=$OLD
        stop_daemon
        DAEMON=
    fi
fi
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
rm -rf "$DEMO"
mkdir -p "$DEMO"

step "Start a daemon: SQLite for the recent logs, a folder for the archive, all under ${DEMO#"$ROOT/"}"
PORT=$(free_port) || die "no free port found"
export LOGTIER_URL=http://127.0.0.1:$PORT
say "Everything that is finished is due at once (hot_for = \"0s\"), so that the archiver has something to do; but it"
say "waits for our command (its schedule is New Year)."
SETTINGS=(
    "LOGTIER_DATA_DIR=$DEMO/data"
    "LOGTIER_SERVER__LISTEN=127.0.0.1:$PORT"
    LOGTIER_RETENTION__DEFAULT__HOT_FOR=0s
    LOGTIER_ARCHIVE__PURGE_GRACE=0s
    "LOGTIER_ARCHIVE__SCHEDULE=0 0 1 1 *"
)
printf '$ env \\\n'
printf '    "%s" \\\n' "${SETTINGS[@]}"
say '    logtier serve'
setsid env "${SETTINGS[@]}" "$BINARY" serve </dev/null >"$DEMO/daemon.log" 2>&1 &
DAEMON=$!
echo "$DAEMON" >"$DEMO/daemon.pid"
for _ in {1..150}; do
    ready && break
    kill -0 "$DAEMON" 2>/dev/null || die "the daemon ended"
    sleep 0.1
done
ready || die "the daemon is not ready after 15 seconds"
say "ready at $LOGTIER_URL"

step "Push ${#LOGS[@]} real logs, as their jobs would, and say that they are finished"
for file in "${LOGS[@]}"; do
    show logtier push "$(instance_of "$file")" "$file" --app "$(app_of "$file")" --job "$(job_of "$file")"
    logtier finish "$(instance_of "$file")" --app "$(app_of "$file")"
done

step "Read one: its lines are in the hot tier"
SAMPLE=demo/logs/powerjob/settlement-735920001.log
APP=$(app_of "$SAMPLE")
INSTANCE=$(instance_of "$SAMPLE")
show logtier show "$INSTANCE" --app "$APP"
show logtier logs "$INSTANCE" --app "$APP" -n 3
read_all "$DEMO/hot"

step "Archive: build, verify by reading back, publish, purge"
show logtier archive --dry-run
show logtier archive

step "Read it again: now from the cold tier"
show logtier show "$INSTANCE" --app "$APP"
show logtier logs "$INSTANCE" --app "$APP" -n 3
read_all "$DEMO/cold"

step "Compare: what was pushed, what the hot tier gave, what the cold tier gave"
for file in "${LOGS[@]}"; do
    name=$(app_of "$file")-$(instance_of "$file")
    cmp "$DEMO/hot/$name" "$DEMO/cold/$name" || die "$name differs between the tiers"
    cmp "$file" "$DEMO/cold/$name" || die "$name differs from the file that was pushed"
    printf 'the same, byte by byte: %8d bytes  %s\n' "$(wc -c <"$file")" "$file"
done

step "The archive needs no logtier to be read: it is NDJSON in zstd"
OBJECT=$(find "$DEMO/data" -name '*.ndjson.zst' -path '*app=powerjob*' | head -n 1)
[ -n "$OBJECT" ] || die "no object was found under $DEMO/data"
find "$DEMO/data" -name '*.ndjson.zst' -printf '%9s bytes  %P\n'
if command -v zstdcat >/dev/null; then
    say "$ zstdcat ${OBJECT#"$ROOT/"} | head -n 3"
    (zstdcat "$OBJECT" || true) 2>/dev/null | head -n 3
else
    say "(zstd is not on this machine: apt-get install zstd, then)"
    say "$ zstdcat ${OBJECT#"$ROOT/"} | head -n 3"
fi

step "How far is the archive behind?"
show logtier status

OK=yes
step "Done"
if [ "${KEEP:-}" = "" ] || [ "${KEEP:-}" = 0 ]; then
    say "The daemon is stopped now; what it wrote stays in ${DEMO#"$ROOT/"} until the next demo. To try next:"
    say "  make demo KEEP=1        the same, and the daemon stays up to be asked"
else
    say "The daemon stays up at $LOGTIER_URL (process $DAEMON; kill $DAEMON stops it). To try next:"
    say "  export LOGTIER_URL=$LOGTIER_URL PATH=${BINARY%/*}:\$PATH"
    say "  seq 100 | logtier push my-first-run --job counting && logtier logs my-first-run"
fi
say "  config/logtier.toml     every setting: MySQL and S3 instead of SQLite and a folder"
say "  README.md               how several daemons share them"
