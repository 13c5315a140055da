"""What is used where nothing is said; help that only names it loads nothing else."""

DEFAULT_STORE = ".codetape/tape.db"
"""The store that is used where none is named."""
