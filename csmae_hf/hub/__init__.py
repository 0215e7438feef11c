"""Between checkpoints and the Hub."""
