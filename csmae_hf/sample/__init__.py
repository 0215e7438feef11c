"""The generator of synthetic scenes."""
