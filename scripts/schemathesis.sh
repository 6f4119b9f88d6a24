#!/usr/bin/env bash
# The API against its own OpenAPI document: schemathesis (PyPI) makes requests, right ones and wrong ones, out of
# the document. No answer may be a 5xx, of another media type or of another shape than documented.
#
#   scripts/schemathesis.sh [ARGUMENTS OF schemathesis run…]
#
#   SECONDS_MAX=N   how long it may go on making requests (default 40)
#   SEED=N          the same requests again; it prints the seed of each run
#
# Runs the debug build on the embedded tiers, in a temporary folder.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

VERSION=4.32.5
VENV=$TOOLS/schemathesis-$VERSION
DIR=$(mktemp -d)
DAEMON=
# shellcheck disable=SC2317,SC2329  # called by trap
finish() {
    [ -z "$DAEMON" ] || kill "$DAEMON" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$DIR"
}
trap finish EXIT

if [ ! -x "$VENV/bin/schemathesis" ]; then
    say "== fetch schemathesis $VERSION from PyPI into $VENV"
    if ! python3 -m venv "$VENV" ||
        ! "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-input "schemathesis==$VERSION" </dev/null; then
        rm -rf "$VENV"
        [ "${CI:-}" = true ] && note "skipped: schemathesis cannot be fetched from PyPI" && exit 0
        die "schemathesis cannot be fetched from PyPI"
    fi
fi
say "== build"
cargo build --quiet
PORT=$(free_port) || die "no free port was found"
URL=http://127.0.0.1:$PORT
LOGTIER_DATA_DIR=$DIR/data LOGTIER_SERVER__LISTEN=127.0.0.1:$PORT \
    "$TARGET/debug/logtier" serve >"$DIR/daemon.log" 2>&1 &
DAEMON=$!

# The document as the daemon serves it, less what never ends (follow) and long waits.
"$VENV/bin/python" - "$URL" >"$DIR/openapi.json" <<'PYTHON'
import json, sys, time, urllib.request
for attempt in range(100):
    try:
        document = json.load(urllib.request.urlopen(sys.argv[1] + "/openapi.json"))
        break
    except OSError:
        time.sleep(0.1)
document["paths"] = {path: calls for path, calls in document["paths"].items() if not path.endswith("/follow")}
for calls in document["paths"].values():
    for call in calls.values():
        for media_type, content in call.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/x-ndjson":
                content["schema"] = {"type": "array", "items": content["x-line-schema"]}
        for parameter in call["parameters"]:
            if parameter["name"] == "wait":
                parameter["schema"]["maximum"] = 1
json.dump(document, sys.stdout)
PYTHON

# A stream of documents has no serializer of its own.
cat >"$DIR/hooks.py" <<'PYTHON'
import json, schemathesis

@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    lines = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(line) for line in lines).encode()
PYTHON

say "== schemathesis"
status=0
(cd "$DIR" && SCHEMATHESIS_HOOKS=hooks "$VENV/bin/schemathesis" run "$DIR/openapi.json" --url "$URL" \
    --checks not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance \
    --phases examples,coverage,fuzzing --max-time "${SECONDS_MAX:-40}" --request-timeout 20 --warnings off \
    ${SEED:+--seed "$SEED"} --suppress-health-check all "$@") || status=$?
if grep -E "panicked| ERROR " "$DIR/daemon.log" >&2; then
    note "the daemon said that something went wrong"
    status=1
fi
exit "$status"
