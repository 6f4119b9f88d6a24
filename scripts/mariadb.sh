#!/usr/bin/env bash
# A private MariaDB for the tests.
#
#   scripts/mariadb.sh start    fetch if needed, make a fresh data directory, start; prints the URL
#   scripts/mariadb.sh stop     stop it and remove its data directory
#   scripts/mariadb.sh status   the URL if it runs, else exit status 1
#   scripts/mariadb.sh fetch    only find or fetch the server; prints its path
#
# Own data directory, own socket, own port, loopback only, root without a password: for tests, never for
# data. A `mariadbd` (or MARIADBD=path) of the machine is used where there is one; else Debian's packages are
# downloaded and unpacked under target/tools. Nothing is installed, and no root is needed.
#
#   MARIADB_DURABLE=1     sync every commit (crash tests); without it the server skips fsync, for speed
#   MARIADB_ARGS="…"      more options for mariadbd
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

DIR=${LOGTIER_TEST_MARIADB_DIR:-$TARGET/test-mariadb}
UNPACKED=$TOOLS/mariadb

# The Debian package of a shared library that a bare machine may lack.
package_of() {
    case $1 in
    libaio.so.*) echo libaio1 ;;
    libcrypt.so.*) echo libcrypt1 ;;
    libcrypto.so.3 | libssl.so.3) echo libssl3 ;;
    libgcc_s.so.*) echo libgcc-s1 ;;
    libnuma.so.*) echo libnuma1 ;;
    libpcre2-8.so.*) echo libpcre2-8-0 ;;
    libstdc++.so.*) echo libstdc++6 ;;
    libsystemd.so.*) echo libsystemd0 ;;
    liburing.so.*) echo liburing2 ;;
    libz.so.*) echo zlib1g ;;
    libcap.so.*) echo libcap2 ;;
    libgcrypt.so.*) echo libgcrypt20 ;;
    libgpg-error.so.*) echo libgpg-error0 ;;
    liblz4.so.*) echo liblz4-1 ;;
    liblzma.so.*) echo liblzma5 ;;
    libzstd.so.*) echo libzstd1 ;;
    *) return 1 ;;
    esac
}

# missing_libraries BINARY: names of the shared libraries that the loader does not find.
missing_libraries() {
    LD_LIBRARY_PATH=$(library_path "$1") ldd "$1" 2>/dev/null | awk '/not found/ { print $1 }'
}

# library_path BINARY: where libraries unpacked beside it lie; empty for a binary of the machine.
library_path() {
    case $1 in
    "$TOOLS"/*) find "${1%/usr/sbin/*}" -name '*.so*' -printf '%h\n' | sort -u | paste -sd: ;;
    esac
}

# find_server: prints the path of a mariadbd that is there already.
find_server() {
    local candidate
    for candidate in "${MARIADBD:-}" "$(command -v mariadbd || true)" /usr/sbin/mariadbd /usr/local/sbin/mariadbd \
        "$UNPACKED/usr/sbin/mariadbd"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

# fetch_server: downloads and unpacks Debian's packages. The folder appears under its final name only when
# it is whole, so that a fetch that was cut short, or two at once, do no harm.
fetch_server() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        die "no mariadbd here, and this machine has no apt-get to fetch one with." \
            "Install MariaDB's server, or set MARIADBD=path, or set LOGTIER_TEST_MYSQL_URL."
    fi
    note "mariadb: no mariadbd here; unpacking Debian's mariadb-server-core under $UNPACKED (8 MB, some seconds)"
    local work packages=(mariadb-server-core) fetched=" " name package
    work=$(mktemp -d "$TOOLS/mariadb.XXXXXX")
    mkdir "$work/root"
    for _ in 1 2 3 4; do # libraries of libraries: a few rounds at most
        if ! (cd "$work" && apt_download "${packages[@]}"); then
            tail -n 5 "$work/apt.log" >&2
            rm -rf "$work"
            die "could not download ${packages[*]}. Install MariaDB's server or set LOGTIER_TEST_MYSQL_URL."
        fi
        for package in "$work"/*.deb; do
            dpkg-deb -x "$package" "$work/root"
            rm "$package"
        done
        fetched+="${packages[*]} "
        packages=()
        for name in $(missing_libraries "$work/root/usr/sbin/mariadbd"); do
            package=$(package_of "$name") || die "mariadbd needs $name, which this script does not know how to get"
            case "$fetched ${packages[*]-} " in *" $package "*) ;; *) packages+=("$package") ;; esac
        done
        [ ${#packages[@]} -gt 0 ] || break
    done
    mv -T "$work/root" "$UNPACKED" 2>/dev/null || [ -x "$UNPACKED/usr/sbin/mariadbd" ] || die "cannot write $UNPACKED"
    rm -rf "$work"
    printf '%s\n' "$UNPACKED/usr/sbin/mariadbd"
}

server() { find_server || fetch_server; }

# server_command BINARY: sets COMMAND to the call with its own libraries and messages, whatever the machine has.
server_command() {
    local base=${1%/sbin/*} libraries
    libraries=$(library_path "$1")
    COMMAND=("$1" --no-defaults "--user=$(id -un)" "--basedir=$base")
    if [ -n "$libraries" ]; then
        COMMAND=(env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "${COMMAND[@]}"
            "--lc-messages-dir=$base/share/mysql" "--character-sets-dir=$base/share/mysql/charsets"
            "--plugin-dir=$base/lib/mysql/plugin")
    fi
}

# The folder with the SQL that makes the system tables.
share_dir() {
    local base=${1%/sbin/*} folder
    for folder in "$base/share/mysql" "$base/share/mariadb" "$base/share"; do
        # The files were renamed from mysql_… to mariadb_… in MariaDB 10.11's successors.
        if compgen -G "$folder/m*_system_tables.sql" >/dev/null; then
            printf '%s\n' "$folder"
            return 0
        fi
    done
    return 1
}

# system_tables SHARE: what mariadb-install-db would feed to the server, less the help texts and the sys schema.
# (That script itself needs a program of the client package.)
system_tables() {
    local file
    # The bootstrap reads one statement a line.
    printf '%s\n' 'create database mysql;' 'use mysql;' 'set @auth_root_socket=NULL;'
    for file in system_tables performance_tables system_tables_data; do
        cat "$1"/m*_"$file".sql
    done
    cat "$1/maria_add_gis_sp_bootstrap.sql"
}

running() { [ -f "$DIR/pid" ] && kill -0 "$(cat "$DIR/pid")" 2>/dev/null; }

start() {
    if running; then
        stop
    fi
    rm -rf "$DIR"
    mkdir -p "$DIR/data" "$DIR/tmp"
    chmod 700 "$DIR"
    local binary share port
    binary=$(server)
    share=$(share_dir "$binary") || die "the system tables' SQL of $binary was not found; set LOGTIER_TEST_MYSQL_URL"
    local fast=(--innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-flush-method=nosync)
    local common=("--datadir=$DIR/data" "--tmpdir=$DIR/tmp" --skip-log-bin --performance-schema=OFF)

    server_command "$binary"
    if ! system_tables "$share" | "${COMMAND[@]}" "${common[@]}" "${fast[@]}" --bootstrap >"$DIR/bootstrap.log" 2>&1; then
        tail -n 20 "$DIR/bootstrap.log" >&2
        die "MariaDB could not make its system tables"
    fi

    [ "${MARIADB_DURABLE:-0}" = 1 ] && fast=(--innodb-flush-log-at-trx-commit=1)
    local extra=()
    read -r -a extra <<<"${MARIADB_ARGS:-}"
    for _ in 1 2 3; do # another program may take the port between the look and the bind
        port=$(free_port) || die "no free port found"
        : >"$DIR/log"
        # Its own session: Ctrl-C in the terminal must reach the tests, and only then, by `stop`, the server.
        # The relative socket lies in the data directory, so that a deep checkout does not exceed the 107 bytes.
        setsid "${COMMAND[@]}" "${common[@]}" "${fast[@]}" --port="$port" --bind-address=127.0.0.1 \
            --socket=mysqld.sock --pid-file="$DIR/server.pid" --skip-name-resolve \
            --character-set-server=utf8mb4 --max-connections=500 --innodb-buffer-pool-size=256M \
            "${extra[@]}" </dev/null >"$DIR/log" 2>&1 &
        echo $! >"$DIR/pid"
        for _ in {1..300}; do
            if grep -q '^Version: ' "$DIR/log"; then
                echo "mysql://root@127.0.0.1:$port/" >"$DIR/url"
                sed -n "s/^Version: '\([^']*\)'.*/\1/p" "$DIR/log" | head -n 1 >"$DIR/version"
                cat "$DIR/url"
                return 0
            fi
            running || break
            sleep 0.1
        done
        running && kill -9 "$(cat "$DIR/pid")"
        grep -q 'in use' "$DIR/log" || break
    done
    tail -n 20 "$DIR/log" >&2
    die "MariaDB did not start; its log is $DIR/log"
}

stop() {
    local pid
    if running; then
        pid=$(cat "$DIR/pid")
        kill "$pid" 2>/dev/null || true
        for _ in {1..100}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -rf "$DIR"
}

case ${1:-} in
start) start ;;
stop) stop ;;
status) running && cat "$DIR/url" ;;
fetch) server ;;
*) die "usage: scripts/mariadb.sh start|stop|status|fetch" ;;
esac
