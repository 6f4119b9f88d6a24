# shellcheck shell=bash
# What the scripts share. Source it; it changes into the repository's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ROOT=$PWD

# Everything that is made or fetched lies here, so that `cargo clean` or `rm -r target` undoes it all.
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$ROOT/$TARGET ;; esac
# Tools and servers that were fetched or compiled for this project; may be shared between checkouts.
TOOLS=${LOGTIER_TOOLS:-$TARGET/tools}
mkdir -p "$TARGET" "$TOOLS"

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }

# die MESSAGE: what went wrong and what to do, then exit 1.
die() {
    note "error: $*"
    exit 1
}

# free_port: prints a loopback TCP port that nothing listens on just now.
free_port() {
    local port
    for _ in {1..50}; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return 0
        fi
    done
    return 1
}

# apt_download PACKAGE…: into the current folder. Where the machine has no (or old) package lists, a private
# copy of the lists is made under target/tools: `apt-get update` proper would need root.
apt_download() {
    if apt-get -q download "$@" >apt.log 2>&1; then
        return 0
    fi
    local lists=$TOOLS/apt
    note "the machine's package lists do not serve; fetching a private copy into $lists (about 15 s)"
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
    local options=(-o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3)
    apt-get "${options[@]}" -q update >>apt.log 2>&1 &&
        apt-get "${options[@]}" -q download "$@" >>apt.log 2>&1
}
