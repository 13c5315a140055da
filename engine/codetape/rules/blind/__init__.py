"""Blind evaluation: what tests claim of the code, asked without what they expect, and compared outside the sandbox."""
