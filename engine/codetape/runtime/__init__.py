"""Drives sessions: the only place where effects are performed."""
