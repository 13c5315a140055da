"""Many sessions: corpora, series of tasks, checks of a change, backtests, and their statistics."""
