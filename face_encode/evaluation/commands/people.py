"""x."""

import argparse


def add_arguments(p: argparse.ArgumentParser) -> None:
    """X."""


def run(o: argparse.Namespace) -> int:
    """X."""
    return 0
