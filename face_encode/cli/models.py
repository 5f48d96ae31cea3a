"""``face-encode models``, the known encoders and detectors, and ``face-encode export``."""

from __future__ import annotations

import argparse
from typing import Any

from face_encode.cli.options import add_json_option, print_json, print_table
from face_encode.cli.transfer import export_people
from face_encode.errors import InputError
from face_encode.outputs import add_overwrite_option, check_output
from face_encode.terminal import print_safely

# What is neither: in a line what it is for, and the names of its files in ``KNOWN_WEIGHTS``.
_OTHERS = {
    "liveness": (
        "a live face, or a photo or screen that is held up; downloaded, 3.7 MB",
        ("minifasnet_v2", "minifasnet_v1se"),
    ),
}


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "List the known encoders, detectors and other networks, where their weights come from, and "
        "licences."
    )
    add_json_option(parser)
    actions = parser.add_subparsers(metavar="[get]")
    get = actions.add_parser(
        "get",
        help="get weights now, instead of at the first use",
        description=(
            "Get weights, check and convert them now, instead of at the first use: for machines "
            "that will have no network, or to copy to such a machine."
        ),
    )
    get.add_argument(
        "names",
        metavar="NAME",
        nargs="+",
        help="a choice, an encoder, a downloaded detector, or liveness",
    )
    get.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept a licence that does not allow every use, such as non-commercial use only",
    )
    add_json_option(get)
    parser.set_defaults(names=[])


def run_models(options: argparse.Namespace) -> int:
    """Print the two tables, or get weights."""
    from face_encode.detectors.registry import DEFAULT_DETECTOR, KNOWN_DETECTORS
    from face_encode.encoders.registry import CHOICES, DEFAULT_ENCODER, KNOWN_ENCODERS
    from face_encode.weights import KNOWN_WEIGHTS

    if options.names:
        return _get(options.names, accept_licence=options.accept_licence, as_json=options.json)
    encoders = []
    for name, encoder in KNOWN_ENCODERS.items():
        contract = encoder.contract
        encoders.append(
            {
                "name": name,
                "default": name == DEFAULT_ENCODER,
                "crop": str(contract.crop),
                "threshold": round(contract.threshold, 3),
                "false_match_rate": contract.false_match_rate,
                "thresholds": {f"{rate:g}": value for rate, value in contract.thresholds},
                "present": encoder.is_present,
                "weights": encoder.origin,
                "licence": contract.licence,
            }
        )
    detectors = [
        {
            "name": name,
            "default": name == DEFAULT_DETECTOR,
            "summary": known.summary,
            "licence": known.licence,
        }
        for name, known in KNOWN_DETECTORS.items()
    ]
    choices = [
        {
            "name": name,
            "default": choice.encoder == DEFAULT_ENCODER and choice.detector == DEFAULT_DETECTOR,
            "encoder": choice.encoder,
            "detector": choice.detector,
            "summary": choice.summary,
            "accuracy": choice.accuracy,
            "found": {f"{rate:g}": share for rate, share in choice.found},
            "milliseconds": choice.milliseconds,
            "megabytes": choice.megabytes,
            "licence": f"{KNOWN_ENCODERS[choice.encoder].contract.licence}; detector: "
            f"{KNOWN_DETECTORS[choice.detector].licence}",
        }
        for name, choice in CHOICES.items()
    ]
    others = [
        {
            "name": name,
            "summary": summary,
            "licence": "; ".join(dict.fromkeys(KNOWN_WEIGHTS[file].licence for file in files)),
        }
        for name, (summary, files) in _OTHERS.items()
    ]
    if options.json:
        lists = {"choices": choices, "encoders": encoders, "detectors": detectors}
        print_json(lists | {"others": others})
        return 0
    _print_models("choices (* the default): an encoder with a detector, by --model NAME", choices)
    print(
        "accuracy: of 2,200 pairs of LFW; found: pairs of one person, by the share of strangers "
        "who pass;\nmilliseconds: a photo of 250x250, from file to embedding, on one core\n"
    )
    _print_models("encoders (* the default; a .keras file is an encoder too)", encoders)
    _print_models("\ndetectors (* the default)", detectors)
    _print_models("\nothers", others)
    return 0


def _print_models(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table, the default's name with a star."""
    print(title)
    starred = [{**row, "name": row["name"] + " *" * row.get("default", False)} for row in rows]
    columns = [key for key in rows[0] if key != "default"]
    print_table(
        [column.replace("_", " ") for column in columns],
        [[_cell(row[key]) for key in columns] for row in starred],
    )


def _get(names: list[str], *, accept_licence: bool, as_json: bool) -> int:
    """Fetch weights and print where they are."""
    from face_encode.detectors.registry import KNOWN_DETECTORS
    from face_encode.encoders.registry import CHOICES, KNOWN_ENCODERS, load_encoder
    from face_encode.liveness.judging import LivenessJudge
    from face_encode.weights import (
        KNOWN_WEIGHTS,
        cache_folder,
        expected_digest,
        installed_path,
        read_verified,
    )

    downloads = [name for name, row in KNOWN_WEIGHTS.items() if row.url is not None]
    encoders = [name for name, row in KNOWN_ENCODERS.items() if row.files]
    allowed = list(dict.fromkeys([*CHOICES, *encoders, *downloads, *_OTHERS]))
    for name in names:
        if name not in allowed:
            raise InputError(f"weights are those of {', '.join(allowed)}. Received: {name!r}")
    results = []
    for name in names:
        choice = CHOICES.get(name)
        encoder = choice.encoder if choice else name
        files: list[str] = []
        if encoder in encoders:
            load_encoder(encoder, accept_licence=accept_licence)
            files += KNOWN_ENCODERS[encoder].files
        other = KNOWN_DETECTORS[choice.detector].weights if choice else name
        if name in _OTHERS:
            for weights in _OTHERS[name][1]:
                read_verified(weights)
                files.append(weights)
            LivenessJudge()
        elif other is not None and other not in encoders:
            read_verified(other, accept_licence=accept_licence)
            files.append(other)
        for weights in files:
            results.append(
                {
                    "name": name,
                    "path": str(installed_path(weights)),
                    "sha256": expected_digest(weights),
                    "licence": KNOWN_WEIGHTS[weights].licence,
                }
            )
    if as_json:
        print_json({"weights": results, "cache": str(cache_folder())})
        return 0
    rows = [[str(value) for value in result.values()] for result in results]
    print_table(list(results[0]), rows)
    print(
        f"Downloads and converted networks are in {cache_folder()}. A machine without a network "
        "takes a copy of that folder; FACE_ENCODE_CACHE says where it lies."
    )
    return 0


def _cell(value: Any) -> str:
    """Format a value for the table."""
    if isinstance(value, dict):
        return ", ".join(f"{each:g} at {rate}" for rate, each in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Write an encoder as one file that runs without Keras and without this package, and beside "
        "it JSON that says how it is to be used; the file is compared with Keras first. Or write "
        "the people of a gallery database as .npz, as .parquet or as a folder of their crops, "
        "everything that it holds of one person as a .zip file, or a copy of it as .sqlite."
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a known encoder, a .keras file, or people.sqlite"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write: .onnx or .tflite of an encoder; .sqlite, .npz, .parquet, or a "
        "folder, of a gallery; .zip of a person",
    )
    parser.add_argument("--person", metavar="NAME", help="only this person of the gallery")
    add_overwrite_option(parser)
    add_json_option(parser)


def run_export(options: argparse.Namespace) -> int:
    """Export, and say what was written."""
    from face_encode.encoders.export import check_export_path, export_encoder
    from face_encode.encoders.registry import load_encoder
    from face_encode.files import as_path
    from face_encode.gallery.opening import names_gallery

    of_people = names_gallery(options.source)
    kind = ("gallery" if options.person is None else "person's archive") if of_people else "encoder"
    check_output(options.output, kind, inputs=[options.source], overwrite=options.overwrite)
    if of_people:
        return export_people(options.source, options.output, options.person, as_json=options.json)
    if options.person is not None:
        raise InputError(f"--person is somebody in a gallery. Received: {options.source}")
    # Before the seconds that loading a model takes.
    check_export_path(as_path(options.output))
    encoder = load_encoder(options.source, engine="tensorflow")
    written = export_encoder(encoder, options.output)
    if options.json:
        print_json(
            {
                "output": str(written.path),
                "note": str(written.note_path),
                "fingerprint": encoder.fingerprint,
                "largest_difference_from_keras": written.difference,
            }
        )
    else:
        print_safely(f"{written.path}: {encoder.name}, within {written.difference:.1e} of Keras")
        print_safely(f"{written.note_path}: how it is to be used")
    return 0
