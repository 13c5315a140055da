"""The version of the rules, and those whose rules are kept."""

RULES_VERSION = 3
KNOWN_RULES = (1, 2, 3)
"""Versions whose rules are here: a tape of one of them is derived by it."""
"""Of the rules: parsing, anchors, stubs, signatures, verdict, packages, routing, cuts, normaliser."""
