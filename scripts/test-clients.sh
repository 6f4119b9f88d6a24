#!/usr/bin/env bash
# The tests that need other people's clients: the AWS SDKs for Python and JavaScript.
#
#   scripts/test-clients.sh [arguments of cargo test]
#
# They are fetched into target/tools once, from PyPI and npm, and nothing is installed system-wide. Without them
# `make test` skips these tests and says so. The AWS SDK for Java, which PowerJob itself uses, is not among them: its
# jars are in Maven's registry alone. What is particular to it, a signature of each chunk of a body, the Python
# script does by hand.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

CLIENTS=$TOOLS/clients
mkdir -p "$CLIENTS"
if [ ! -x "$CLIENTS/venv/bin/python" ] || ! "$CLIENTS/venv/bin/python" -c 'import boto3' 2>/dev/null; then
    note "clients: fetching boto3 into $CLIENTS (about 20 s)"
    python3 -m venv "$CLIENTS/venv" && "$CLIENTS/venv/bin/pip" install -q boto3 ||
        die "boto3 could not be fetched; python3 with venv and a way to PyPI are needed"
fi
if [ ! -d "$CLIENTS/node_modules/@aws-sdk/client-s3" ]; then
    note "clients: fetching @aws-sdk/client-s3 into $CLIENTS (about 10 s)"
    (cd "$CLIENTS" && npm install --silent --no-audit --no-fund --prefix . @aws-sdk/client-s3) ||
        die "@aws-sdk/client-s3 could not be fetched; node with npm and a way to its registry are needed"
fi
LOGTIER_TEST_CLIENTS=$CLIENTS cargo test --test it clients "$@"
