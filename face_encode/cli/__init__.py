"""The command ``face-encode``: parses, calls, prints.

For each command one function declares its arguments and one runs it and returns the exit code.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from face_encode.cli import analyze, embed, enroll, gallery, match, models, serve, transfer, watch
from face_encode.cli.evaluate import add_commands as add_evaluation_commands
from face_encode.files import reason_of
from face_encode.terminal import exit_code_of
from face_encode.training import attributes, distill, head, quality
from face_encode.version import __version__

_COMMANDS = {
    "enroll": (enroll.add_arguments, enroll.run, "enrol a folder of people into a gallery"),
    "match": (match.add_match_arguments, match.run_match, "name the faces in photos"),
    "verify": (
        match.add_verify_arguments,
        match.run_verify,
        "say whether two photos show the same person",
    ),
    "people": (gallery.add_people_arguments, gallery.run_people, "list the people in a gallery"),
    "photos": (gallery.add_photos_arguments, gallery.run_photos, "list a person's photos"),
    "unknown": (
        gallery.add_unknown_arguments,
        gallery.run_unknown,
        "list people without a name, whom cameras have seen or photos show",
    ),
    "name": (gallery.add_name_arguments, gallery.run_name, "give somebody unknown a name"),
    "remove": (
        gallery.add_remove_arguments,
        gallery.run_remove,
        "take a person, or single photos, out of a gallery",
    ),
    "move": (
        gallery.add_move_arguments,
        gallery.run_move,
        "make photos those of another person",
    ),
    "rename": (gallery.add_rename_arguments, gallery.run_rename, "rename a person"),
    "threshold": (
        gallery.add_threshold_arguments,
        gallery.run_threshold,
        "give a person a threshold of the person's own",
    ),
    "merge": (gallery.add_merge_arguments, gallery.run_merge, "make one person of two names"),
    "undo": (gallery.add_undo_arguments, gallery.run_undo, "undo a change of a gallery"),
    "history": (gallery.add_history_arguments, gallery.run_history, "list a gallery's changes"),
    "forget": (
        gallery.add_forget_arguments,
        gallery.run_forget,
        "remove a person and every trace of that person",
    ),
    "rekey": (
        gallery.add_rekey_arguments,
        gallery.run_rekey,
        "encrypt a gallery, or encrypt it under a new key",
    ),
    "reembed": (
        transfer.add_reembed_arguments,
        transfer.run_reembed,
        "embed everybody again by another encoder",
    ),
    "import": (
        transfer.add_import_arguments,
        transfer.run_import,
        "copy people from elsewhere into a gallery",
    ),
    "index": (
        gallery.add_index_arguments,
        gallery.run_index,
        "make searches of a large gallery faster",
    ),
    "embed": (
        embed.add_arguments,
        embed.run,
        "write the embeddings of a folder of photos into a file",
    ),
    "analyze": (
        analyze.add_arguments,
        analyze.run,
        "tell age, gender and expression of the faces in photos",
    ),
    "watch": (
        watch.add_arguments,
        watch.run,
        "follow and name the faces in a camera, a stream or a video file",
    ),
    "export": (
        models.add_export_arguments,
        models.run_export,
        "write an encoder, or a gallery, as a file that other programs read",
    ),
    "models": (
        models.add_models_arguments,
        models.run_models,
        "list the known encoders and detectors, their sources and licences",
    ),
}
_TRAININGS = {
    "head": (head, "the last layers, on a folder of people"),
    "distill": (distill, "a whole network, to give another one's embeddings"),
    "quality": (quality, "a head that judges how far an encoder's embeddings can be trusted"),
    "attributes": (attributes, "the network that tells age, gender and expression"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words behind the command's name; None takes the program's own.

    Returns:
        0 done; 1 an error of ours, told in one line on standard error. Wrong usage ends the
        program with 2.
    """
    if sys.stdout is None:
        # Closed by who started us: what is printed goes nowhere.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text, and a terminal may lack its letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        code = exit_code_of(lambda: int(options.run(options)))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        reason = reason_of(error)
        print(f"face-encode: standard output cannot be written: {reason}", file=sys.stderr)
        return 1
    finally:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """What could not be written is not tried again when Python ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="face-encode", description="Recognise people by their faces."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (add_arguments, run, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        add_arguments(command)
        command.set_defaults(run=run)
    add_evaluation_commands(commands)
    service = commands.add_parser("serve", help=serve.SUMMARY)
    serve.add_arguments(service)
    service.set_defaults(run=serve.run)
    train = commands.add_parser("train", help="train an encoder of your own")
    trainings = train.add_subparsers(title="trainings", metavar="WHAT", required=True)
    for name, (script, summary) in _TRAININGS.items():
        training = trainings.add_parser(name, help=summary, description=script.DESCRIPTION)
        script.add_arguments(training)
        training.set_defaults(run=script.run)
    return parser
