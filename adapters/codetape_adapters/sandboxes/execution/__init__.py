"""What both sandboxes share: limits, staging, locks, seccomp, reading reports."""
