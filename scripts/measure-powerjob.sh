#!/usr/bin/env bash
# PowerJob's workers behind logtier while its database restarts: does a forward wait, is an acknowledged line lost?
#
#   scripts/measure-powerjob.sh [seconds, default 600]
#
# 50 workers report 20 lines and send a heartbeat each second, through a daemon to a server that answers at once. Every
# 60 s MariaDB is stopped and started again on its data. Before that, a minute without logtier in between, to compare.
# BINARY=path measures another build than the release build.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

SECONDS_LONG=${1:-600}
WORK=$TARGET/measure-powerjob
[ -n "${BINARY:-}" ] || cargo build --quiet --release
BINARY=${BINARY:-$TARGET/release/logtier}
rm -rf "$WORK"
mkdir -p "$WORK"
export LOGTIER_TEST_MARIADB_DIR=$WORK/mariadb
URL=$(MARIADB_DURABLE=1 scripts/mariadb.sh start)
trap 'kill "$DAEMON" 2>/dev/null || true; wait "$DAEMON" 2>/dev/null || true; scripts/mariadb.sh stop' EXIT

python3 - "$BINARY" "$URL" "$WORK" "$SECONDS_LONG" <<'PY' &
import http.client, http.server, json, os, random, signal, socket, subprocess, sys, threading, time, urllib.parse

binary, url, work, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
WORKERS, LINES, RESTART_EVERY = 50, 20, 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class PowerJob(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b'{"success":true,"data":null,"message":null}'
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


server = Server(("127.0.0.1", 0), PowerJob)
threading.Thread(target=server.serve_forever, daemon=True).start()
powerjob = server.server_address[1]
front, api = free_port(), free_port()
log = open(os.path.join(work, "daemon.log"), "wb")
database = url.rstrip("/") + "/measure"
pid_file = os.path.join(work, "mariadb", "pid")


def mysql_pid():
    return int(open(pid_file).read())


def make_database():
    # No client is at hand: MariaDB makes a folder of its data directory a database.
    os.mkdir(os.path.join(work, "mariadb", "data", "measure"))


make_database()
daemon = subprocess.Popen([binary, "serve"], stderr=log, env={
    **os.environ, "LOGTIER_DATA_DIR": work + "/data", "LOGTIER_SERVER__LISTEN": f"127.0.0.1:{api}",
    "LOGTIER_HOT__URL": database, "LOGTIER_COLD__URL": f"file://{work}/cold", "LOGTIER_COLD__SHARED": "true",
    "LOGTIER_PROTOCOL__POWERJOB__LISTEN": f"127.0.0.1:{front}",
    "LOGTIER_PROTOCOL__POWERJOB__SERVER": f"http://127.0.0.1:{powerjob}"})
signal.signal(signal.SIGTERM, lambda *_: (daemon.terminate(), sys.exit(1)))


def call(port, method, path, body=None, timeout=30):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    connection.request(method, path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


for _ in range(300):
    try:
        if call(api, "GET", "/readyz")[0] == 200:
            break
    except OSError:
        pass
    time.sleep(0.1)
else:
    sys.exit(open(os.path.join(work, "daemon.log")).read())

millis = int(time.time() * 1000)
first = (millis - 1555776000000) << 22


def worker(number, port, until, stats):
    id, n = first + number, 0
    connection = None
    while time.time() < until:
        began = time.time()
        for what in ("workerHeartbeat", "reportLog"):
            if what == "reportLog":
                texts = [f"{number}.{n}.{line}" for line in range(LINES)]
                body = json.dumps({"workerAddress": f"10.0.0.{number}:27777", "instanceLogContents": [
                    {"instanceId": id, "logTime": int(time.time() * 1000), "logLevel": 2, "logContent": text}
                    for text in texts]})
            else:
                body = "{}"
            sent = time.time()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                    connection.connect()
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.request("POST", "/server/" + what, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except OSError:
                status, connection = 0, None
            stats[what].append((time.time() - sent, status))
            if what == "reportLog" and status == 200:
                stats["acknowledged"][id].extend(texts)
        n += 1
        time.sleep(max(0.0, 1 - (time.time() - began)) * random.uniform(0.9, 1.1))


def run(port, span):
    stats = {"workerHeartbeat": [], "reportLog": [], "acknowledged": {first + n: [] for n in range(WORKERS)}}
    until = time.time() + span
    threads = [threading.Thread(target=worker, args=(n, port, until, stats)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
        time.sleep(1 / WORKERS)
    return threads, stats


def show(name, samples):
    times = sorted(time for time, _ in samples)
    at = lambda share: 1000 * times[min(len(times) - 1, int(share * len(times)))]
    bad = sum(1 for _, status in samples if status != 200)
    print(f"{name:28} {len(samples):7} sent {bad:6} not 200   p50 {at(.5):6.1f}  p99 {at(.99):6.1f}  max {at(1):7.1f} ms", flush=True)


threads, stats = run(powerjob, 60)
for thread in threads:
    thread.join()
show("heartbeats without logtier", stats["workerHeartbeat"])

threads, stats = run(front, seconds)
ends, restarts, away = time.time() + seconds, 0, 0.0
while time.time() < ends - RESTART_EVERY / 2:
    time.sleep(RESTART_EVERY / 2)
    pid = mysql_pid()
    command = [part.decode() for part in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[:-1]]
    environment = dict(part.split(b"=", 1) for part in open(f"/proc/{pid}/environ", "rb").read().split(b"\0") if b"=" in part)
    began = time.time()
    os.kill(pid, signal.SIGTERM)
    while os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().split(") ")[1][0] != "Z":
        time.sleep(0.01)
    again = subprocess.Popen(command, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                             stdout=open(os.path.join(work, "mariadb.log"), "ab"), stderr=subprocess.STDOUT)
    open(pid_file, "w").write(str(again.pid))
    port = urllib.parse.urlsplit(url).port
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.01)
    away += time.time() - began
    restarts += 1
    time.sleep(RESTART_EVERY / 2)
for thread in threads:
    thread.join()
print(f"MariaDB restarted {restarts} times, away {away / max(1, restarts):.1f} s each")
show("heartbeats through logtier", stats["workerHeartbeat"])
show("reports of 20 lines", stats["reportLog"])

time.sleep(10)
lines = lost = twice = gaps = 0
for id, texts in stats["acknowledged"].items():
    status, content = call(api, "GET", f"/api/v1/apps/powerjob/instances/{id}/download?format=raw")
    assert status == 200, content
    stored = content.decode().splitlines()
    counts = {}
    for line in stored:
        counts[line] = counts.get(line, 0) + 1
    gaps += sum(1 for line in stored if "are missing here" in line)
    lines += len(texts)
    lost += sum(1 for text in texts if text not in counts)
    twice += sum(1 for count in counts.values() if count > 1)
metrics = call(api, "GET", "/metrics")[1].decode()
noted = [line for line in metrics.splitlines() if line.startswith("logtier_powerjob_") ]
print(f"{lines} lines acknowledged: {lost} lost, {twice} there twice; {gaps} gaps noted in the logs")
print("\n".join(noted))
daemon.terminate()
daemon.wait()
sys.exit(1 if lost or twice else 0)
PY
DAEMON=$!
wait "$DAEMON"
