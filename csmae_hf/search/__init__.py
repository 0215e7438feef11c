"""Nearest vectors behind one interface, the filter language, and places."""
