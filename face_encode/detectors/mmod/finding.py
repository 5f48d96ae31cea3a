"""The whole way from a photo to boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_encode.detectors.base import Found
from face_encode.detectors.mmod.decoding import best_apart, to_whole
from face_encode.detectors.mmod.network import Network
from face_encode.detectors.mmod.pyramid import draw_pyramid, lay_out
from face_encode.dlib_file import DlibDetectorOptions, read_dlib_detector
from face_encode.types import ImageArray


@dataclass(frozen=True, eq=False)
class FaceFinder:
    """dlib's network; holds weights only, so that threads can share it.

    Attributes:
        network: Scores every window.
        options: How scores become boxes.
    """

    network: Network
    options: DlibDetectorOptions

    @classmethod
    def of(cls, content: bytes) -> FaceFinder:
        """Make one of a dlib file's content.

        Raises:
            WeightsError: Not a detector.
        """
        options, layers = read_dlib_detector(content)
        return cls(Network.of(layers), options)

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces.

        Args:
            image: RGB, uint8, ``(height, width, 3)``, at least 10 pixels a side.

        Returns:
            The same as dlib gives, the highest score first.
        """
        layout = lay_out(image.shape[1], image.shape[0])
        canvas = self.network.canvas(layout.height, layout.width)
        draw_pyramid(image, layout, self.network.mean, canvas)
        scores = self.network.scores(canvas, layout.height, layout.width)
        places = np.argwhere(scores > 0)
        if not len(places):
            return []
        middles = self.network.middle(places[:, ::-1].astype(np.float64))
        # From the middle of the first pixel to the middle of the last one.
        reach = np.array([self.options.width - 1, self.options.height - 1]) / 2
        windows = np.concatenate([middles - reach, middles + reach], axis=1)
        edges = to_whole(layout.to_photo(windows))
        found = scores[scores > 0]
        return [
            Found(
                float(edges[index, 0]),
                float(edges[index, 1]),
                float(edges[index, 2] - edges[index, 0] + 1),
                float(edges[index, 3] - edges[index, 1] + 1),
                float(found[index]),
            )
            for index in best_apart(edges, found, self.options)
        ]
