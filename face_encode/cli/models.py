"""``face-encode models``: the known encoders and detectors, their sources and licences."""

from __future__ import annotations

import argparse

from face_encode.console import add_json_option, print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "List the known encoders and detectors, where their weights come from, and licences."
    )
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the two tables."""
    from face_encode.detectors.loading import DEFAULT_DETECTOR, KNOWN_DETECTORS
    from face_encode.encoders.contract import read_contract
    from face_encode.encoders.loading import DEFAULT_ENCODER, KNOWN_ENCODERS
    from face_encode.encoders.shipped import SHIPPED_ENCODERS, shipped_path
    from face_encode.weights import KNOWN_WEIGHTS

    encoders = []
    for name, known in KNOWN_ENCODERS.items():
        weights, crop = KNOWN_WEIGHTS[known.weights], known.contract.crop
        encoders.append(
            {
                "name": name,
                "default": name == DEFAULT_ENCODER,
                "crop": f"{crop.method} {crop.height}x{crop.width}",
                "threshold": known.contract.threshold,
                "weights": f"package {weights.package} ({weights.source})",
                "licence": weights.licence,
            }
        )
    for name in SHIPPED_ENCODERS:
        contract = read_contract(shipped_path(name))
        assert contract is not None
        encoders.append(
            {
                "name": name,
                "default": name == DEFAULT_ENCODER,
                "crop": f"{contract.crop.method} {contract.crop.height}x{contract.crop.width}",
                "threshold": round(contract.threshold, 3),
                "weights": "this package (trained by this project, see weights/README.md)",
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
    if options.json:
        print_json({"encoders": encoders, "detectors": detectors})
        return 0
    for title, rows in (("encoders", encoders), ("detectors", detectors)):
        print(
            f"{title} (* the default; a .keras file is an encoder too)"
            if title == "encoders"
            else f"\n{title} (* the default)"
        )
        columns = [key for key in rows[0] if key != "default"]
        print_table(
            columns,
            [
                [f"{row[key]}{' *' if key == 'name' and row['default'] else ''}" for key in columns]
                for row in rows
            ],
        )
    return 0
