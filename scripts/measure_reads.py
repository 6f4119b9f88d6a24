"""The two halves of measure-reads.sh: fill a daemon with logs, and read them back while counting."""

import http.client
import json
import re
import sys
import time

RARE = "7f3a9c51e2d84b06"
COUNTERS = re.compile(r'^logtier_read_(?:blocks_total\{kind="(\w+)"\}|(bytes)_total) (\d+)$', re.M)


class Daemon:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=600)

    def call(self, method, path, body=None, kind="application/x-ndjson"):
        self.connection.request(method, path, body, {"content-type": kind} if body else {})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status != 200:
            sys.exit(f"{method} {path}: {response.status} {answer[:300]}")
        return answer

    def counters(self):
        text = self.call("GET", "/metrics").decode()
        return {kind or name: int(value) for kind, name, value in COUNTERS.findall(text)}


def fill(port, path, size):
    daemon, messages = Daemon(port), []
    for line in open(path, encoding="utf-8"):
        record = json.loads(line)
        message = record.pop("message")
        record["app"] = "reads"
        messages.append((record, message))
    left, copy, pending, pending_bytes = int(size) * 1_000_000, 0, [], 0
    instances = set()

    def flush():
        nonlocal pending, pending_bytes
        if pending:
            daemon.call("POST", "/api/v1/records", "".join(pending).encode())
        pending, pending_bytes = [], 0

    def add(record):
        nonlocal pending_bytes
        line = json.dumps(record, ensure_ascii=False) + "\n"
        pending.append(line)
        pending_bytes += len(line)
        if pending_bytes > 4_000_000:
            flush()
        return len(line)

    large, n = 200_000_000, 0
    while large > 0:
        for record, message in messages:
            level = "ERROR" if n in (100_000, 400_000) else "INFO"
            large -= add({"app": "reads", "job": "large", "instance": "large", "ts": record["ts"], "level": level, "message": message})
            n += 1
            if large <= 0:
                break
    lines, instances = n, {"large"}
    while left > 0:
        digits = str.maketrans("0123456789", "".join(str((7 * d + copy) % 10) for d in range(10)))
        for record, message in messages:
            instance = f"{record['instance']}-{copy}"
            instances.add(instance)
            left -= add({**record, "instance": instance, "message": message.translate(digits)})
            if left <= 0:
                break
        copy += 1
    some = sorted(instances)[len(instances) // 2]
    add({"app": "reads", "instance": some, "ts": 1_700_000_000_000, "message": f"request {RARE} was lost"})
    flush()
    for instance in instances:
        daemon.call("POST", f"/api/v1/apps/reads/instances/{instance}/finish", b"{}", "application/json")
    print(f"{len(instances)} instances; the large one has {lines} lines")


def read(port):
    daemon = Daemon(port)
    lines = json.loads(daemon.call("GET", "/api/v1/apps/reads/instances/large"))["lines"]
    records = "/api/v1/apps/reads/instances/large/records"
    asked = [
        ("the 200 MB attempt, all of it", f"/api/v1/apps/reads/instances/large/download?format=ndjson"),
        ("its last 100 lines", f"{records}?last=100"),
        ("100 lines in its middle", f"{records}?from_line={lines // 2}&limit=100"),
        ("level=error in it (2 lines)", f"{records}?level=error"),
        ("a rare text everywhere, filters not in memory", f"/api/v1/search?contains={RARE}"),
        ("the same again", f"/api/v1/search?contains={RARE}"),
        ("a text of that length that is nowhere", f"/api/v1/search?contains={RARE[::-1]}"),
        ("one too short for the filters, nowhere: everything", "/api/v1/search?contains=%23~q%23"),
    ]
    print(f"{'what':52} {'frames':>7} {'skipped':>8} {'bytes':>12} {'first ms':>9} {'best of 5':>9}")
    for what, path in asked:
        before = daemon.counters()
        times = []
        for repeat in range(5 if "again" in what or "nowhere" in what or "large" not in what else 3):
            began = time.perf_counter()
            answer = daemon.call("GET", path)
            times.append(1000 * (time.perf_counter() - began))
            if repeat == 0:
                after = daemon.counters()
                if "not in memory" in what:
                    break
        if "/search" in path:
            summary = json.loads(answer.splitlines()[-1])["summary"]
            after = {"frame": summary["scanned"]["frames"], "bytes": summary["scanned"]["bytes"]}
            before, after["frame_skipped"] = {}, summary["skipped"]["frames"]
        cost = [after.get(kind, 0) - before.get(kind, 0) for kind in ("frame", "frame_skipped", "bytes")]
        print(f"{what:52} {cost[0]:7} {cost[1]:8} {cost[2]:12} {times[0]:9.1f} {min(times):9.1f}")


{"fill": fill, "read": read}[sys.argv[1]](*sys.argv[2:])
