#!/usr/bin/env python3
"""Fills a database as PowerJob does, and checks what logtier made of it. Used by measure-import.sh.

    powerjob_fill.py fill MYSQL_URL FILES TRUTH     needs PyMySQL
    powerjob_fill.py check DAEMON_URL TRUTH         compares every instance's messages, byte for byte

TRUTH is a file with a line for each log that must be there: instance, SHA-1 of its messages, their number.
"""
import concurrent.futures
import hashlib
import http.client
import random
import sys
import threading
import urllib.parse

# PowerJob's own: MySqlSeriesDfsService, and others/sql/schema/powerjob_mysql_5.1.0.sql.
FILES_DDL = """CREATE TABLE IF NOT EXISTS powerjob_files (
    `id` BIGINT NOT NULL AUTO_INCREMENT COMMENT 'ID',
    `bucket` VARCHAR ( 255 ) NOT NULL COMMENT '分桶',
    `name` VARCHAR ( 255 ) NOT NULL COMMENT '文件名称',
    `version` VARCHAR ( 255 ) NOT NULL COMMENT '版本',
    `meta` VARCHAR ( 255 ) COMMENT '元数据',
    `length` BIGINT NOT NULL COMMENT '长度',
    `status` INT NOT NULL COMMENT '状态',
    `data` LONGBLOB NOT NULL COMMENT '文件内容',
    `extra` VARCHAR ( 255 ) COMMENT '其他信息',
    `gmt_create` DATETIME NOT NULL COMMENT '创建时间',
    `gmt_modified` DATETIME COMMENT '更新时间',
    PRIMARY KEY ( id ))"""
INSTANCE_DDL = """CREATE TABLE `instance_info` (
  `id` bigint NOT NULL AUTO_INCREMENT, `actual_trigger_time` bigint DEFAULT NULL, `app_id` bigint DEFAULT NULL,
  `expected_trigger_time` bigint DEFAULT NULL, `finished_time` bigint DEFAULT NULL,
  `gmt_create` datetime(6) DEFAULT NULL, `gmt_modified` datetime(6) DEFAULT NULL, `instance_id` bigint DEFAULT NULL,
  `instance_params` longtext, `job_id` bigint DEFAULT NULL, `job_params` longtext,
  `last_report_time` bigint DEFAULT NULL, `result` longtext, `running_times` bigint DEFAULT NULL,
  `status` int DEFAULT NULL, `task_tracker_address` varchar(255) DEFAULT NULL, `type` int DEFAULT NULL,
  `wf_instance_id` bigint DEFAULT NULL, PRIMARY KEY (`id`), KEY `idx01_instance_info` (`job_id`,`status`),
  KEY `idx02_instance_info` (`app_id`,`status`), KEY `idx03_instance_info` (`instance_id`,`status`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""

PLACEHOLDERS = [
    b"SYSTEM: There is no online log for this job instance.",
    b"There is no local log for this task now, you need to use memory log or see the output of remote log",
]
FIRST_MILLIS = 1_751_508_000_000  # 2025-07-03 10:00 in Shanghai
WORDS = "fetch order retry commit timeout customer invoice ledger 处理 完成 失败".split()


def stamp(millis):
    """PowerJob's time, in Shanghai; one day is enough for a log."""
    seconds, ms = divmod(millis + 8 * 3600 * 1000, 1000)
    days, second = divmod(seconds, 86400)
    # July and August of 2025.
    day = days - 20272 + 1
    month, day = (7, day) if day <= 31 else (8, day - 31)
    return "2025-%02d-%02d %02d:%02d:%02d.%03d" % (month, day, second // 3600, second // 60 % 60, second % 60, ms)


def log_of(rng, start, lines):
    """The bytes of a file, its messages as `download?format=raw` gives them, and how many there are."""
    file, raw = [], []
    for n in range(lines):
        head = "%s [10.0.0.%d:27777] " % (stamp(start + n * 37), rng.randrange(5))
        level = rng.choice(["DEBUG", "INFO", "INFO", "INFO", "INFO", "WARN", "ERROR"])
        kind = rng.randrange(40)
        if kind == 0:
            text = ("java.lang.IllegalStateException: %08x\n\tat com.example.Job.run(Job.java:%d)\n\tat java.lang.Thread.run"
                    % (rng.getrandbits(32), n)).encode()
        elif kind == 1:
            text = ("任务执行 %d" % n).encode("gbk")
        elif kind == 2:
            text = b"windows %d\r" % n
        else:
            text = ("%s id=%08x took %d ms, line %d" % (rng.choice(WORDS), rng.getrandbits(32), rng.randrange(900), n)).encode()
        file.append(("%s%s " % (head, level)).encode() + text + b"\n")
        raw.append(text + b"\n")
    return b"".join(file), b"".join(raw), lines


def fill(url, files, truth_path):
    import pymysql

    where = urllib.parse.urlsplit(url)
    connection = pymysql.connect(host=where.hostname, port=where.port or 3306, user=where.username, charset="utf8mb4",
                                 password=where.password or "", database=where.path.strip("/"), max_allowed_packet=1 << 28)
    cursor = connection.cursor()
    cursor.execute("SET NAMES utf8mb4")
    cursor.execute(FILES_DDL)
    cursor.execute(INSTANCE_DDL)
    rng, truth, rows, total = random.Random(1), open(truth_path, "w"), [], 0

    def store(bucket, name, data):
        rows.append((bucket, name, "mu", '{"_server_":"10.0.0.1"}', len(data), 1, data, None, "2025-07-03", "2025-07-03"))

    def flush():
        nonlocal rows, total
        total += sum(row[4] for row in rows)
        cursor.executemany("insert into powerjob_files(bucket, name, version, meta, length, status, data, extra, gmt_create,"
                           " gmt_modified) values (%s,%s,%s,%s,%s,%s,_binary %s,%s,%s,%s)", rows)
        connection.commit()
        rows = []

    stored, n, instances = 0, 0, []
    while stored < files:
        n += 1
        instance = ((FIRST_MILLIS + n * 40_000 - 1_555_776_000_000) << 22) + n % 4096
        name, start = "oms-%d.log" % instance, FIRST_MILLIS + n * 40_000 + 1_000
        if n % 40 == 0:
            store("log", name, rng.choice(PLACEHOLDERS))
            stored += 1
            continue
        if n % 211 == 0:
            store("log", name, b"")
            stored += 1
            continue
        lines = min(5_000, int(rng.paretovariate(1.1) * 8))
        data, raw, count = log_of(rng, start, lines)
        if n % 25 == 0:
            store("log", name, data[: len(data) // 2])
            stored += 1
        store("log", name, data)
        stored += 1
        if n % 30 == 0:
            store("log", name, PLACEHOLDERS[0])
            stored += 1
        if n % 500 == 0:
            store("container", "oms-container-%d.jar" % n, b"PK\x03\x04" + rng.randbytes(200_000))
            stored += 1
        if n % 10:
            status, times = rng.choice([5, 5, 5, 4, 9, 10]), 2 if n % 50 == 1 else 1
            instances.append((1, 40 + n % 60, instance, 7 if n % 3 == 0 else None, status, times, start + lines * 37))
        truth.write("%d %s %d\n" % (instance, hashlib.sha1(raw).hexdigest(), count))
        if len(rows) >= 500:
            flush()
    instance = ((FIRST_MILLIS - 1_555_776_000_000) << 22) + 1
    data, raw, count = log_of(rng, FIRST_MILLIS, 540_000)
    store("log", "oms-%d.log" % instance, data)
    truth.write("%d %s %d\n" % (instance, hashlib.sha1(raw).hexdigest(), count))
    flush()
    for at in range(0, len(instances), 1000):
        cursor.executemany("insert into instance_info(app_id, job_id, instance_id, wf_instance_id, status, running_times,"
                           " finished_time) values (%s,%s,%s,%s,%s,%s,%s)", instances[at : at + 1000])
    connection.commit()
    cursor.execute("CHECKSUM TABLE powerjob_files, instance_info")
    print("%d files, %d bytes, the largest %d; checksums %s" % (stored + 1, total, len(data), cursor.fetchall()))


def checksums(url):
    import pymysql

    where = urllib.parse.urlsplit(url)
    connection = pymysql.connect(host=where.hostname, port=where.port or 3306, user=where.username,
                                 password=where.password or "", database=where.path.strip("/"))
    cursor = connection.cursor()
    cursor.execute("CHECKSUM TABLE powerjob_files, instance_info")
    print(cursor.fetchall())


def check(url, truth_path):
    where, local = urllib.parse.urlsplit(url), threading.local()

    def one(line):
        instance, sha1, count = line.split()
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(where.hostname, where.port)
        local.connection.request("GET", "/api/v1/apps/powerjob/instances/%s/download?format=raw" % instance)
        answer = local.connection.getresponse()
        body = answer.read()
        if answer.status != 200 or hashlib.sha1(body).hexdigest() != sha1:
            return "%s: status %d, %d bytes differ" % (instance, answer.status, len(body))
        return int(count)

    logs, lines, wrong = 0, 0, []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(one, open(truth_path)):
            if isinstance(result, int):
                logs, lines = logs + 1, lines + result
            else:
                wrong.append(result)
    print("%d logs, %d lines: every line once, byte for byte; %d differ %s" % (logs, lines, len(wrong), wrong[:5]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    elif sys.argv[1] == "checksums":
        checksums(sys.argv[2])
    else:
        check(sys.argv[2], sys.argv[3])
