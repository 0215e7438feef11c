"""Pre-training with the Hugging Face Trainer."""
