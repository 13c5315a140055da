"""The loop measured: a simulated programmer on tasks whose truth is known. ``python -m tests.bench.loop`` prints a table."""
