"""Weights files of both MiniFASNets, with numbers drawn at random and the originals' names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# Channels of the blocks of each stage, first those of the block of stride 2 that leads to it.
V2 = {"3": (103, 13, 13, 13, 13), "4": (231, 231, 52, 26, 77, 26, 26), "5": (308, 26, 26)}
V1SE = {"3": (103, 13, 26, 13, 52), "4": (231, 154, 52, 26, 52, 26, 26), "5": (308, 26, 26)}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def shapes_of(stages: dict[str, tuple[int, ...]], *, squeezes: bool) -> Shapes:
    """Names and shapes of the arrays of a network, in the order of the original's modules."""
    yield from _convolved("conv1", 32, 3, 3)
    yield from _convolved("conv2_dw", 32, 1, 3)
    channels = 64
    for stage, (first, *others) in stages.items():
        entry = {"3": "conv_23", "4": "conv_34", "5": "conv_45"}[stage]
        out = 64 if stage == "3" else 128
        yield from _block(entry, channels if stage != "3" else 32, first, out)
        channels = out
        for number, within in enumerate(others):
            name = f"conv_{stage}.model.{number}"
            yield from _block(name, channels, within, channels)
            if squeezes and number == len(others) - 1:
                for fc, norm, shape in (
                    ("fc1", "bn1", (channels // 4, channels)),
                    ("fc2", "bn2", (channels, channels // 4)),
                ):
                    yield f"{name}.se_module.{fc}.weight", (*shape, 1, 1)
                    yield from _normalised(f"{name}.se_module.{norm}", shape[0])
    yield from _convolved("conv_6_sep", 512, 128, 1)
    yield from _convolved("conv_6_dw", 512, 1, 5, activated=False)
    yield "linear.weight", (128, 512)
    yield from _normalised("bn", 128)
    yield "prob.weight", (3, 128)


def _block(name: str, channels: int, within: int, out: int) -> Shapes:
    yield from _convolved(f"{name}.conv", within, channels, 1)
    yield from _convolved(f"{name}.conv_dw", within, 1, 3)
    yield from _convolved(f"{name}.project", out, within, 1, activated=False)


def _convolved(name: str, out: int, inside: int, window: int, *, activated: bool = True) -> Shapes:
    yield f"{name}.conv.weight", (out, inside, window, window)
    yield from _normalised(f"{name}.bn", out)
    if activated:
        yield f"{name}.prelu.weight", (out,)


def _normalised(name: str, channels: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def draw_weights(
    stages: dict[str, tuple[int, ...]], *, squeezes: bool
) -> dict[str, npt.NDArray[np.generic]]:
    """Draw a network whose outputs are neither all alike nor out of bounds, always the same."""
    random = np.random.default_rng(20_200_703)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, shape in shapes_of(stages, squeezes=squeezes):
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            arrays[f"module.{name}"] = np.array(7, np.int64)
            continue
        if "prelu" in name:
            array = random.uniform(-0.1, 0.6, shape)
        elif kind == "running_var" or (len(shape) == 1 and kind == "weight"):
            array = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            array = random.standard_normal(shape) / 8
        else:
            array = random.standard_normal(shape) / np.prod(shape[1:]) ** 0.5
        # Pixels reach 255.
        array = array / 128 if name == "conv1.conv.weight" else array
        arrays[f"module.{name}"] = array.astype(np.float32)
    return arrays
