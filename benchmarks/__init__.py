"""How fast and how small: ratios taken in one run against DBOSClient, raw COPY and bare SQL.

``python -m benchmarks full`` makes its own databases, measures, and writes ``build/benchmarks.md``.
"""
