"""Measurements side by side: what the project does, what it is measured against, and what the machine can do."""
