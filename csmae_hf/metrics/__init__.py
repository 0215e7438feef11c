"""Scores of a ranking with multi-label relevance: pure functions on arrays."""
