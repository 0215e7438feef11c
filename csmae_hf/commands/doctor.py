"""Examine the environment: versions, devices, what is missing or broken.

Examine the environment: versions, devices, attention, threads, extras, and packages that would break it, with the command that
mends each. Ends with status 1 if something is broken.
"""

import argparse

import csmae_doctor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Print the examination; 1 if something is broken."""
    return csmae_doctor.run_doctor()
