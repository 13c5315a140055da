"""The Docker sandbox: one container an execution, everything through streams."""
