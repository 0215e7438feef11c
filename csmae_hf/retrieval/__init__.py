"""Embedding, searching and measuring."""
