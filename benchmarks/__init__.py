"""Benchmarks: speed and memory relative to DBOSClient, raw COPY and bare SQL in the same run.

``python -m benchmarks full`` creates databases, measures, and writes ``build/benchmarks.md``.
"""
