"""Reading, generating and batching tiles."""
