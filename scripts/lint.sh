#!/usr/bin/env bash
# What a change must satisfy besides its tests: what `make lint` and CI run.
#
#   scripts/lint.sh [CHECK…]     fmt clippy doc scripts typos machete deny; all of them if none is named
#
# typos comes as a binary from PyPI. cargo-machete and cargo-deny are compiled from crates.io once (together
# about 5 minutes on two cores) into target/tools, or taken from PATH.
#
#   LOGTIER_LINT_SECONDS=N   compile a missing tool only if it is done within N seconds; 0: never
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

TYPOS=1.52.0
MACHETE=0.9.2
DENY=0.20.2

passed=() skipped=() failed=()
PATH=$PATH:$TOOLS/bin:$TOOLS/typos-$TYPOS/bin

# run NAME COMMAND…: one check, its output only if it has something to say.
run() {
    local name=$1 began=$SECONDS
    shift
    say "== $name"
    if "$@"; then
        passed+=("$name ($((SECONDS - began)) s)")
    else
        failed+=("$name")
    fi
}

skip() {
    say "== $1: skipped, $2"
    skipped+=("$1: $2")
}

# compiled TOOL VERSION: is there, or was compiled now. Unpacked and built away from the project's own target.
compiled() {
    command -v "$1" >/dev/null && return 0
    local limit=${LOGTIER_LINT_SECONDS:-3600}
    [ "$limit" -gt 0 ] || return 1
    note "lint: compiling $1 $2 once into $TOOLS/bin (some minutes; never longer than $limit s)"
    local build=$TOOLS/build-$1 began=$SECONDS done=1
    timeout --foreground "$limit" cargo install --quiet --locked --root "$TOOLS" --target-dir "$build" "$1@$2" >"$TOOLS/$1.log" 2>&1 </dev/null ||
        { done=0 && tail -n 3 "$TOOLS/$1.log" >&2; }
    rm -rf "$build"
    [ -n "${LOGTIER_LINT_SECONDS:-}" ] && LOGTIER_LINT_SECONDS=$((limit > SECONDS - began ? limit - (SECONDS - began) : 0))
    [ "$done" = 1 ]
}

# fetched_typos: the binary of PyPI's wheel, in a folder of its own.
fetched_typos() {
    command -v typos >/dev/null && return 0
    python3 -m pip install --quiet --disable-pip-version-check --no-input --no-deps --target "$TOOLS/typos-$TYPOS" \
        "typos==$TYPOS" >"$TOOLS/typos.log" 2>&1 </dev/null && command -v typos >/dev/null
}

check_fmt() { cargo fmt --check; }

check_clippy() { cargo clippy --quiet --all-targets -- -D warnings; }

check_doc() { RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --no-deps --document-private-items; }

check_scripts() {
    local file status=0
    for file in scripts/*.sh .ci/run; do
        bash -n "$file" || status=1
    done
    if command -v shellcheck >/dev/null; then
        shellcheck -x scripts/*.sh .ci/run || status=1
    else
        skipped+=("scripts: only their syntax was checked, as shellcheck is not here")
    fi
    return "$status"
}

# The database of advisories is a git repository that not every machine reaches: said, not failed.
check_deny() {
    # The build fetched this platform's crates only; the check reads those of every platform.
    cargo fetch --quiet --locked || return 1
    cargo deny --offline check --hide-inclusion-graph bans licenses sources || return 1
    if timeout 60 cargo deny fetch db >/dev/null 2>&1 </dev/null; then
        cargo deny --offline check --hide-inclusion-graph advisories
    else
        skipped+=("deny: advisories, as their database cannot be fetched from here")
    fi
}

# Without cargo-deny: at least no dependency under a licence that deny.toml does not name.
check_licences() {
    cargo metadata --format-version 1 --quiet | python3 scripts/licences.py deny.toml
}

check() {
    case $1 in
    fmt | clippy | doc | scripts) run "$1" "check_$1" ;;
    typos) if fetched_typos; then run typos typos; else skip typos "it could not be fetched from PyPI ($TOOLS/typos.log)"; fi ;;
    machete)
        if compiled cargo-machete "$MACHETE"; then
            run machete cargo machete
        else
            skip machete "cargo-machete is not here and there is no time to compile it (make lint does)"
        fi
        ;;
    deny)
        if compiled cargo-deny "$DENY"; then
            run deny check_deny
        else
            skip deny "cargo-deny is not here and there is no time to compile it (make lint does); licences only"
            run licences check_licences
        fi
        ;;
    *) die "unknown check $1: fmt clippy doc scripts typos machete deny" ;;
    esac
}

[ $# -gt 0 ] || set -- fmt clippy doc scripts typos machete deny
for name in "$@"; do
    check "$name"
done

say ""
say "== lint: summary"
for name in "${passed[@]}"; do say "ok       $name"; done
for name in "${skipped[@]}"; do say "skipped  $name"; done
for name in "${failed[@]}"; do say "FAILED   $name"; done
[ ${#failed[@]} -eq 0 ]
