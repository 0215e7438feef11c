"""The `csmae` command: one file a verb, nothing but argument parsing and printing.

`csmae_doctor` loads these files without the package around them, whose import takes seconds, so that help and mistakes are answered
at once. So they import each other relatively, and everything else of the package when a verb runs.
"""
