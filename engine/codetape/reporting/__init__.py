"""Read models of recorded sessions: calls, spend, causes, audits, spans."""
