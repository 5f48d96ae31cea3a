"""The commands that say how far to trust a match.

Each module holds one command: ``add_arguments(parser)`` declares it, ``run(options)`` does it
and returns the exit code. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
from importlib import import_module

_COMMANDS = {
    "calibrate": "learn the threshold for a stated rate of false matches from your own people",
    "check": "name likely mistakes in a folder of people: mislabelled, doubled, blurred photos",
    "cluster": "sort the faces of unnamed photos into people",
}
_MEASUREMENTS = {
    "pairs": "verification on a list of pairs of photos (LFW's formats or CSV)",
    "people": "identification: a folder of people to enrol, and a folder of probes",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate pairs``, ``evaluate people``, ``calibrate``, ``check`` and ``cluster``.

    Args:
        commands: What ``add_subparsers`` of the program's parser returned. Each parser sets
            ``run``, a function from the parsed options to the exit code.
    """
    evaluate = commands.add_parser("evaluate", help="measure how often a match is right")
    measurements = evaluate.add_subparsers(title="measurements", metavar="WHAT", required=True)
    for name, summary in _MEASUREMENTS.items():
        _add(measurements, name, summary)
    for name, summary in _COMMANDS.items():
        _add(commands, name, summary)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> None:
    """Add one command from the module of its name."""
    parser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    module = import_module(f"face_encode.evaluation.commands.{name}")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
