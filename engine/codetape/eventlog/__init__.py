"""Events, their envelope and hash chain, the state machine, and the fold that gives a session's state."""
