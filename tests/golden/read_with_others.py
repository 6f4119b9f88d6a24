#!/usr/bin/env python3
"""Reads the golden segment with tools that are not logtier's, and compares with its expected lines.

    python3 tests/golden/read_with_others.py

Uses what is there of: the zstd command, and zstandard, duckdb, pyarrow, pandas from PyPI
(`pip install zstandard duckdb`). Says what it skipped; exits with 1 when a reader that is there
reads anything else than the expected lines.
"""

import io
import json
import pathlib
import shutil
import struct
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
SEGMENT = FOLDER / "segment-v1.ndjson.zst"
EXPECTED = (FOLDER / "segment-v1.ndjson").read_bytes()
RECORDS = [json.loads(line) for line in EXPECTED.splitlines()]


def zstd_command():
    if not shutil.which("zstd"):
        raise ImportError("the zstd command")
    subprocess.run(["zstd", "-tq", SEGMENT], check=True)
    assert subprocess.run(["zstd", "-dc", SEGMENT], check=True, stdout=subprocess.PIPE).stdout == EXPECTED


def python_zstandard():
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(SEGMENT.open("rb"), read_across_frames=True)
    assert io.BufferedReader(reader).read() == EXPECTED


def seek_table():
    """Random access by docs/segment-format.md alone: the seek table, then one frame."""
    import zstandard

    data = SEGMENT.read_bytes()
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (descriptor, magic) == (0, 0x8F92EAB1)
    start = len(data) - 9 - 8 * count
    assert struct.unpack("<II", data[start - 8 : start]) == (0x184D2A5E, 8 * count + 9)
    entries = [struct.unpack("<II", data[start + 8 * i : start + 8 * i + 8]) for i in range(count)]
    compressed = raw = 0
    for length, raw_length in entries:
        frame = data[compressed : compressed + length]
        if raw_length:
            content = zstandard.ZstdDecompressor().decompress(frame)
            assert content == EXPECTED[raw : raw + raw_length]
        else:
            assert struct.unpack("<I", frame[:4])[0] == 0x184D2A51, "our index"
        compressed, raw = compressed + length, raw + raw_length
    assert (compressed, raw) == (start - 8, len(EXPECTED))


class Cursor:
    """The encodings of docs/segment-format.md."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        return self.data[self.at - length : self.at]

    def uint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def int(self):
        value = self.uint()
        return value >> 1 ^ -(value & 1)

    def text(self):
        return self.take(self.uint()).decode()

    def range(self, base):
        least = base + self.int()
        return [least, least + self.uint()]

    def extent(self):
        lines, levels = self.uint(), self.take(1)[0]
        return {"lines": lines, "ts": self.range(0) if levels & 0x80 else None, "levels": levels & 0x7F}

    def column(self, n):
        lengths = [self.uint() for _ in range(n)]
        return [self.take(length).decode() for length in lengths]

    def deltas(self, n):
        before, out = 0, []
        for _ in range(n):
            before += self.int()
            out.append(before)
        return out


def attempts_of(raw, n):
    c = Cursor(raw)
    ids, versions = c.deltas(n), [c.uint() for _ in range(n)]
    states, flags, levels, created = c.take(n), c.take(n), c.take(n), c.deltas(n)
    finished = [created[i] + c.int() if flags[i] & 1 else None for i in range(n)]
    first_lines, lines = [c.uint() for _ in range(n)], [c.uint() for _ in range(n)]
    ts = [c.range(created[i] * 1_000_000) if levels[i] & 0x80 else None for i in range(n)]
    frames, skips, raw_bytes = c.deltas(n), [c.int() for _ in range(n)], [c.uint() for _ in range(n)]
    frame_before = end = 0
    for i in range(n):
        skips[i] += end if frames[i] == frame_before else 0
        frame_before, end = frames[i], skips[i] + raw_bytes[i]
    hashes = [f"{struct.unpack('<Q', c.take(8))[0]:016x}" for _ in range(n)]
    numbers = [c.uint() for _ in range(n)]
    jobs = iter(c.column(sum(f >> 1 & 1 for f in flags)))
    instances = c.column(n)
    labels = iter(c.column(sum(f >> 2 & 1 for f in flags)))
    assert c.at == len(raw)
    return [
        {
            "id": ids[i], "meta_version": versions[i], "job": next(jobs) if flags[i] & 2 else None,
            "instance": instances[i], "attempt": numbers[i],
            "labels": json.loads(next(labels)) if flags[i] & 4 else {},
            "state": states[i] & 15, "outcome": states[i] >> 4, "created_at": created[i], "finished_at": finished[i],
            "first_line": first_lines[i], "extent": {"lines": lines[i], "ts": ts[i], "levels": levels[i] & 0x7F},
            "frame": frames[i], "skip": skips[i], "raw_bytes": raw_bytes[i], "hash": hashes[i],
        }
        for i in range(n)
    ]  # fmt: skip


def frames_of(raw, n):
    c = Cursor(raw)
    compressed, lengths, lines = ([c.uint() for _ in range(n)] for _ in range(3))
    levels, base, frames = c.take(n), 0, []
    for i in range(n):
        ts = c.range(base) if levels[i] & 0x80 else None
        base = ts[0] if ts else base
        extent = {"lines": lines[i], "ts": ts, "levels": levels[i] & 0x7F}
        frames.append({"compressed_len": compressed[i], "raw_len": lengths[i], "extent": extent})
    assert c.at == len(raw)
    return frames


def index_by_the_document():
    """A reader of the index from docs/segment-format.md, against what logtier says of the same file."""
    import zstandard

    data = SEGMENT.read_bytes()
    index_end = len(data) - 17 - 8 * struct.unpack("<I", data[-9:-5])[0]
    footer = data[index_end - 48 : index_end]
    magic, version, _, directory_len, attempts_len, frames_len = struct.unpack("<8sHHIQQ", footer[:32])
    assert (magic, version) == (b"LTINDEX1", 1)
    directory_at = index_end - 48 - directory_len
    c = Cursor(data[directory_at : index_end - 48])
    got = {name: c.text() for name in ["cluster", "app", "rule", "created_by"]}
    got |= {"finish_day": c.int(), "created_at": c.int()}
    replaces = [c.take(16) for _ in range(c.uint())]
    names = ["attempts", "frames", "raw_bytes", "data_bytes"]
    got["totals"] = {name: c.uint() for name in names} | {"extent": c.extent()}
    attempt_blocks = [(c.uint(), c.uint(), c.extent()) for _ in range(c.uint())]
    frame_blocks = [c.uint() for _ in range(c.uint())]
    assert c.at == directory_len
    at = directory_at - frames_len - attempts_len
    decompress = zstandard.ZstdDecompressor().decompress
    got["attempts"], got["frames"] = [], []
    for length, count, _ in attempt_blocks:
        got["attempts"] += attempts_of(decompress(data[at : at + length]), count)
        at += length
    for length in frame_blocks:
        left = got["totals"]["frames"] - len(got["frames"])
        got["frames"] += frames_of(decompress(data[at : at + length]), min(left, 4096))
        at += length
    assert at == directory_at
    expected = json.loads((FOLDER / "segment-v1.json").read_bytes())
    assert len(replaces) == len(expected.pop("replaces"))
    expected.pop("key")
    for name, value in expected.items():
        assert got[name] == value, name


def duckdb_sql():
    import duckdb

    rows = duckdb.sql(f"select instance, message from read_json('{SEGMENT}', format = 'newline_delimited')").fetchall()
    assert rows == [(record["instance"], record["message"]) for record in RECORDS]


def pyarrow_json():
    import pyarrow
    import pyarrow.json

    with pyarrow.input_stream(str(SEGMENT), compression="zstd") as stream:
        assert stream.read() == EXPECTED


def pandas_json():
    import pandas
    import zstandard  # noqa: F401, pandas needs it

    frame = pandas.read_json(SEGMENT, lines=True, compression="zstd", dtype=False)
    assert list(frame["message"]) == [record["message"] for record in RECORDS]


def main():
    failed = False
    readers = [zstd_command, python_zstandard, seek_table, index_by_the_document, duckdb_sql, pyarrow_json, pandas_json]
    for reader in readers:
        try:
            reader()
            print(f"ok       {reader.__name__}")
        except ImportError as missing:
            print(f"skipped  {reader.__name__}: not installed: {getattr(missing, 'name', None) or missing}")
        except Exception as error:  # noqa: BLE001, every reader gets its turn
            failed = True
            print(f"FAILED   {reader.__name__}: {type(error).__name__}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
