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
    for reader in [zstd_command, python_zstandard, seek_table, duckdb_sql, pyarrow_json, pandas_json]:
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
