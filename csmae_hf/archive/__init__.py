"""Embeds kept with their metadata: opened, changed, searched, exported."""
