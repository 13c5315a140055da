"""What a usable reply changes: one reader for each purpose."""
