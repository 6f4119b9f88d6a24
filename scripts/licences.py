#!/usr/bin/env python3
"""Checks `cargo metadata` (standard input) against the licences and registries that deny.toml allows.

Stands in for cargo-deny where that has not been compiled. Usage: cargo metadata --format-version 1 | licences.py deny.toml
"""
import json
import re
import sys

# No tomllib: Python 3.9 has none, and one list is all there is to read.
section = re.search(r"^\[licenses\](.*?)(^\[|\Z)", open(sys.argv[1], encoding="utf-8").read(), re.M | re.S).group(1)
allowed = set(re.findall(r'"([^"]+)"', re.search(r"^allow = \[(.*?)\]", section, re.M | re.S).group(1)))


def fits(expression):
    """Whether an SPDX expression can be met with the allowed licences."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternative():
        result = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            result |= conjunction()
        return result

    def conjunction():
        result = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            result &= single()
        return result

    def single():
        token = tokens.pop(0)
        if token == "(":
            result = alternative()
            tokens.pop(0)
            return result
        if tokens and tokens[0] == "WITH":
            token += " WITH " + tokens.pop(1)
            tokens.pop(0)
        return token in allowed

    return alternative()


bad = []
packages = json.load(sys.stdin)["packages"]
for package in packages:
    name = f"{package['name']} {package['version']}"
    if package["source"] is not None and not package["source"].startswith("registry+https://github.com/rust-lang/crates.io-index"):
        bad.append(f"{name}: comes from {package['source']}")
    if not package["license"] or not fits(package["license"]):
        bad.append(f"{name}: licence {package['license']}")
print("\n".join(bad) if bad else f"{len(packages)} packages, all under licences that deny.toml allows")
sys.exit(bool(bad))
