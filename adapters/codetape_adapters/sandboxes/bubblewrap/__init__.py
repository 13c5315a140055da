"""The embedded sandbox: bubblewrap, control groups, cached environments."""
