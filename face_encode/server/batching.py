"""Encoding in batches: faces of requests that arrive together go through the network together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.pipeline.embedding import EmbeddedPhoto, PhotoCrops, encode_together


class EncodingBatcher:
    """Encodes whatever has come in while the last batch was encoded, in one call.

    Nothing waits for others to come: a lone request is encoded at once, and the more there are,
    the larger the batches grow by themselves.
    """

    def __init__(
        self, encoder: Encoder, on_batch: Callable[[int, int], None] = lambda photos, faces: None
    ) -> None:
        """Take an encoder.

        Args:
            encoder: Embeds the faces.
            on_batch: Is told the numbers of photos and of faces of each batch.
        """
        self._encoder = encoder
        self._on_batch = on_batch
        self._waiting: list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "encode")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; called within the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown()

    async def encode(self, photo: PhotoCrops) -> EmbeddedPhoto:
        """Embed the faces of a photo, together with those of others."""
        future: asyncio.Future[EmbeddedPhoto] = asyncio.get_running_loop().create_future()
        self._waiting.append((photo, future))
        self._arrived.set()
        return await future

    def _take(self) -> list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]]:
        """The next batch: as many photos as fill the encoder's own batch, at least one."""
        batch: list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]] = []
        faces = 0
        while self._waiting and (not batch or faces + len(self._waiting[0][0].crops) <= BATCH_SIZE):
            item = self._waiting.pop(0)
            if item[1].cancelled():
                continue  # its client went away
            batch.append(item)
            faces += len(item[0].crops)
        return batch

    async def _run(self) -> None:
        """One batch after the other."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not self._waiting:
                self._arrived.clear()
            if not batch:
                continue
            photos = [photo for photo, _ in batch]
            try:
                embedded = await loop.run_in_executor(self._thread, self._encode, photos)
            except Exception as error:  # told to each who waits; the next batch goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, embedded, strict=True):
                if not future.done():
                    future.set_result(result)

    def _encode(self, photos: list[PhotoCrops]) -> list[EmbeddedPhoto]:
        self._on_batch(len(photos), sum(len(photo.crops) for photo in photos))
        return list(encode_together(photos, self._encoder))
