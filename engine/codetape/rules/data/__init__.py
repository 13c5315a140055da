"""Data of the rules: which package an import needs, and which system packages are known."""
