"""One door for pixels: image files and what they say of themselves."""
