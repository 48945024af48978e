"""Benchmarks; each module prints one JSON object a line. BENCHMARKS.md says what they showed."""
