"""Forked processes: what they must not use, and what they must not destroy.

``os.fork`` copies a process's memory, but of its threads only the one that forks. What has threads
of its own, such as a network in ONNX Runtime or TensorFlow, waits for the others without end: where
it is used, and where it is destroyed when the forked process ends.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any
from weakref import WeakSet

from face_encode.errors import EngineError

_with_threads: WeakSet[Any] = WeakSet()
_keras_process: int | None = None


def never_destroy_after_fork(value: Any) -> None:
    """Let a forked process keep an object to its end, and beyond: nothing destroys it there.

    Args:
        value: An object with threads of its own, or a function that holds such objects.
    """
    _with_threads.add(value)


def use_keras() -> None:
    """Note that Keras, whose backends have threads, is used in this process.

    Raises:
        EngineError: It was used in the process that this one is forked from.
    """
    global _keras_process
    if _keras_process not in (None, os.getpid()):
        raise EngineError(
            "this process was forked from one in which Keras had run, and would wait without end "
            "for threads that it lacks: start it by multiprocessing's 'spawn', load the model "
            'after the fork, or let another engine run the encoder (engine="onnx")'
        )
    _keras_process = os.getpid()


def never_destroy(value: Any) -> None:
    """Keep an object to the end of this process, and beyond."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _keep() -> None:
    """Keep what has threads, in a process that was forked just now."""
    if not len(_with_threads):
        return
    for value in list(_with_threads):
        never_destroy(value)
    # Native libraries wait for their threads once more when the process ends. This handler, the
    # last one, comes first then, after Python has ended: it ends the process by its exit status.
    system = ctypes.CDLL(None)
    if hasattr(system, "on_exit"):  # of glibc
        system.on_exit(system._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
