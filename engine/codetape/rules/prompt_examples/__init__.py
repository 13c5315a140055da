"""Examples in a prompt, taken by rule as tests that no call may change."""
