"""What the commands have in common: options, opening the models, printing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from face_encode.detectors.detector import Detector
    from face_encode.encoders.encoder import Encoder

# A terminal gets the first so many rows of a long list; JSON gets all.
ROWS_SHOWN = 20


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The choices that every command with a model has."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="MODEL", help="a known encoder or a .keras file")
    group.add_argument("--detector", metavar="NAME", help="a known detector")
    group.add_argument(
        "--workers", type=positive, metavar="N", help="processes that read photos and find faces"
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """``--report``."""
    parser.add_argument(
        "--report", metavar="OUT.html", help="write a report with curves and pictures, one file"
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {number}")
    return number


def rate(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"between 0 and 1, not {text}")
    return number


def open_models(options: argparse.Namespace) -> tuple[Detector, Encoder]:
    """The detector and the encoder that the options name."""
    from face_encode.detectors.loading import load_detector
    from face_encode.encoders.loading import load_encoder

    return load_detector(options.detector), load_encoder(options.model)


def print_json(value: Any) -> None:
    """JSON on standard output, alone, with letters of any script as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; whole lines into a pipe, as wide as the terminal on one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        # Text, because a name with square brackets in it is no markup.
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 400).print(table)


def print_lines(title: str, lines: Sequence[str]) -> None:
    """A list under a title, its first rows."""
    if not lines:
        return
    print(f"\n{title}")
    for line in lines[:ROWS_SHOWN]:
        print(f"  {line}")
    if len(lines) > ROWS_SHOWN:
        print(f"  … and {len(lines) - ROWS_SHOWN} more (--json tells all)")


def percent(share: float, digits: int = 2) -> str:
    """A share as percent."""
    return f"{100 * share:.{digits}f} %"
