"""Sandboxes: bubblewrap, the embedded one."""
