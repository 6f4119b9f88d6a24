#!/usr/bin/env bash
# `logtier bench` on MariaDB, every commit synced, and an S3 server, both private and on loopback.
#
#   scripts/bench.sh [arguments of `logtier bench`]
#
# The targets of docs/performance.md are measured so. SETTINGS of the daemon may be given in the environment,
# such as LOGTIER_COLD__ZSTD_LEVEL=3.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

WORK=$TARGET/bench
cargo build --quiet --release --bin logtier --example s3_server
rm -rf "$WORK"
mkdir -p "$WORK/bucket/logs"
export LOGTIER_TEST_MARIADB_DIR=$WORK/mariadb MARIADB_DURABLE=1
echo 'CREATE DATABASE logtier_bench CHARACTER SET utf8mb4;' >"$WORK/init.sql"
URL=$(MARIADB_ARGS="--init-file=$WORK/init.sql" scripts/mariadb.sh start)
PORT=$(free_port)
"$TARGET/release/examples/s3_server" "$WORK/bucket" "$PORT" &
S3=$!
trap 'kill $S3 2>/dev/null || true; scripts/mariadb.sh stop >/dev/null 2>&1 || true; rm -rf "$WORK"' EXIT

cat >"$WORK/logtier.toml" <<TOML
data_dir = "$WORK/data"
[hot]
url = "${URL%/}/logtier_bench"
[cold]
url = "s3://logs/bench"
endpoint = "http://127.0.0.1:$PORT"
region = "us-east-1"
access_key_id = "bench"
secret_access_key = "bench-secret"
TOML
"$TARGET/release/logtier" --config "$WORK/logtier.toml" bench "$@"
