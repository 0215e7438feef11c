"""The `csmae` command: one file a verb, nothing but argument parsing and printing."""
