"""Many sessions: corpora, batches, checks of a change, backtests, and their statistics."""
