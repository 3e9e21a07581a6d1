"""Benchmarks: each compares a public call with hand-written sqlite3 in the same run."""
