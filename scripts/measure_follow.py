"""The client of scripts/measure-follow.sh: followers on plain sockets, a writer, and the counters."""

import asyncio
import json
import sys
import time
import urllib.parse
import urllib.request

import pymysql


def connect(url, database=None):
    parts = urllib.parse.urlparse(url)
    return pymysql.connect(host=parts.hostname, port=parts.port, user=parts.username, database=database, autocommit=True)


class Run:
    def __init__(self, url, port, pid, followers, attempts, seconds):
        self.database, self.port, self.pid = connect(url), port, pid
        self.followers, self.attempts, self.seconds = followers, attempts, seconds
        self.delays, self.events, self.broken = [], 0, 0

    def selects(self):
        with self.database.cursor() as cursor:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
            return int(cursor.fetchone()[1])

    def memory(self):
        lines = dict(line.split(":", 1) for line in open(f"/proc/{self.pid}/status") if ":" in line)
        return "%d MiB now, %d MiB at most" % tuple(int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))

    def write(self):
        """A line to every attempt, in one request, which says when it was sent."""
        now = time.time()
        lines = (json.dumps({"instance": f"f{n}", "message": f"sent {now:.6f} " + "x" * 80}) for n in range(self.attempts))
        body = "\n".join(lines).encode()
        url = f"http://127.0.0.1:{self.port}/api/v1/records"
        urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/x-ndjson"})).read()

    async def write_for(self, seconds):
        end = time.time() + seconds
        while time.time() < end:
            begun = time.time()
            await asyncio.to_thread(self.write)
            await asyncio.sleep(max(0.0, begun + 1 - time.time()))

    async def follow(self, n):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        path = f"/api/v1/apps/default/instances/f{n % self.attempts}/follow?last=0"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    self.events += 1
                    # A sample: this client has one processor as well.
                    if n % 25 < 1:
                        sent = line.split(b"sent ", 1)[1].split(b" ", 1)[0]
                        self.delays.append(time.time() - float(sent))
        except OSError:
            pass
        self.broken += 1

    async def phase(self, name, work):
        before, begun = self.selects(), time.time()
        await work
        rate = (self.selects() - before) / (time.time() - begun)
        print(f"{name:40} {rate:8.1f} queries a second; daemon {self.memory()}", flush=True)
        return rate

    async def all(self):
        for _ in range(100):
            try:
                self.write()
                break
            except OSError:
                time.sleep(0.1)
        print(f"{'started':40} daemon {self.memory()}", flush=True)
        alone = await self.phase("writing, nobody follows", self.write_for(self.seconds))
        tasks = []
        # 200 a second: what is measured is following, not a rush to connect.
        for begun in range(0, self.followers, 10):
            tasks += [asyncio.create_task(self.follow(n)) for n in range(begun, min(begun + 10, self.followers))]
            await asyncio.sleep(0.05)
        await asyncio.sleep(3)
        print(f"{f'{self.followers} followers of {self.attempts} attempts':40} daemon {self.memory()}", flush=True)
        self.events, self.delays = 0, []
        both = await self.phase("writing, all follow", self.write_for(self.seconds))
        await asyncio.sleep(2)
        events, delays = self.events, sorted(self.delays)
        idle = await self.phase("nobody writes, all follow", asyncio.sleep(self.seconds))
        at = lambda share: delays[min(len(delays) - 1, int(len(delays) * share))] if delays else float("nan")
        print(f"events {events}, connections that broke {self.broken}")
        print(f"from before the request to the event: median {at(0.5):.2f} s, 99 % {at(0.99):.2f} s, most {at(1):.2f} s")
        per = lambda rate: rate / self.attempts
        print(f"queries a second and attempt: {per(both - alone):.2f} while written to, {per(idle):.2f} idle")
        for task in tasks:
            task.cancel()


if sys.argv[1] == "database":
    connect(sys.argv[2]).cursor().execute("CREATE DATABASE follow")
else:
    asyncio.run(Run(sys.argv[2], *map(int, sys.argv[3:])).all())
