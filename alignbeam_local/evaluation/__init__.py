"""Measures pairs on benchmarks: suites, methods, the run directory, metrics, reports.

It reads the engine's results, as the command line does; nothing below imports it.
"""
