"""Recorded sessions: tape files, strict replay, re-execution, verification, diffs, what-if."""
