"""The original networks of other projects, for the tests that compare with them.

``facenet-pytorch`` and DeepFace need PyTorch and an older Keras, so their networks cannot run
everywhere these tests run. Their answers are recorded beside this file: every weight's name and
shape in the file that they wrote, and the embeddings that they gave. The weights themselves are
drawn from their names, here as there. If the packages are installed,

    python -m tests.encoders.facenet_originals NAME

makes a record again, for each name at the end of this file; all but the first need
``TF_USE_LEGACY_KERAS=1`` and tf-keras.
"""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from face_encode.types import ImageArray

RECORDS = Path(__file__).parent / "facenet_records"
Array = npt.NDArray[np.float32]


def draw_weight(name: str, shape: tuple[int, ...]) -> Array:
    """A weight, always the same for its name: RandomState's stream is frozen for good.

    Normalisations get statistics that are far from 0 and 1, which would hide a mistake.
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    part = name.rpartition("/")[2].rpartition(".")[2].partition(":")[0]
    if part in ("running_var", "moving_variance") or (part == "weight" and len(shape) == 1):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if part in ("gamma", "alpha"):
        # Small enough that sums of many blocks do not grow without bound.
        return random.uniform(0.5, 0.9, shape).astype(np.float32)
    if len(shape) == 1:
        return random.normal(0, 0.2, shape).astype(np.float32)
    # PyTorch has the outputs first, Keras last; either way this keeps the signal's strength.
    outputs = shape[0] if part == "weight" else shape[-1]
    if part == "depthwise_kernel":
        outputs = shape[-2]
    inputs = np.prod(shape) / outputs
    return random.normal(0, (2 / inputs) ** 0.5, shape).astype(np.float32)


def draw_crops(count: int, side: int = 160) -> ImageArray:
    """Coloured pictures of large patches, of unlike brightness and contrast, some nearly flat."""
    random = np.random.RandomState(5)
    crops = []
    for index in range(count):
        patches = random.uniform(0, 255, (5, 5, 3))
        patches = 128 + (patches - 128) * (0.3 if index % 2 else 1.0) + random.uniform(-60, 60, 3)
        picture = np.kron(patches, np.ones((side // 5 + 1, side // 5 + 1, 1)))[:side, :side]
        picture = picture + random.normal(0, 12, picture.shape)
        crops.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(crops)


def read_record(name: str) -> dict[str, Any]:
    """Read the answers of an original."""
    record: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return record


def write_h5(weights: list[Any]) -> bytes:
    """Make a file as the network of DeepFace writes it, by its recorded names and shapes."""
    memory = io.BytesIO()
    layers: dict[str, list[str]] = {"input_1": []}
    with h5py.File(memory, "w") as file:
        file.create_group("input_1")
        for layer, weight, shape in weights:
            layers.setdefault(layer, []).append(weight)
            file[f"{layer}/{weight}"] = draw_weight(weight, tuple(shape))
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, names in layers.items():
            file[layer].attrs["weight_names"] = np.array([name.encode() for name in names], "S")
    return memory.getvalue()


def whitened(crops: ImageArray) -> Array:
    """Scale pixels for the models of 2017: each crop less its mean, over its deviation."""
    pixels = crops.astype(np.float64)
    mean = pixels.mean(axis=(1, 2, 3), keepdims=True)
    deviation = pixels.std(axis=(1, 2, 3), keepdims=True)
    least: float = pixels[0].size ** -0.5
    return np.asarray((pixels - mean) / np.maximum(deviation, least), np.float32)


def normalized(embeddings: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scale embeddings to length 1."""
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))


def facenet_pytorch_network() -> Any:
    """Build ``InceptionResnetV1`` of facenet-pytorch, with drawn weights, ready to embed.

    Its module is loaded by its path, since the package itself imports torchvision.
    """
    import torch

    spec = importlib.util.find_spec("facenet_pytorch")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("facenet_pytorch is not installed")
    folder = Path(spec.submodule_search_locations[0], "models")
    package = types.ModuleType("facenet_pytorch_models")
    package.__path__ = [str(folder)]
    sys.modules["facenet_pytorch_models"] = package
    module: Any = importlib.import_module("facenet_pytorch_models.inception_resnet_v1")
    network = module.InceptionResnetV1(pretrained=None, classify=False).eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.ndim:
            state[name] = torch.from_numpy(draw_weight(name, tuple(tensor.shape)))
    network.load_state_dict(state)
    return network


def embed_by_pytorch(network: Any, crops: ImageArray) -> Array:
    """Embed as facenet-pytorch does: ``(x - 127.5) / 128``, channels first."""
    import torch

    pixels = torch.from_numpy((crops.astype(np.float32) - 127.5) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        embeddings: Array = network(pixels.contiguous()).numpy()
    return embeddings


def deepface_network(module_name: str, builder: str, *arguments: Any) -> Any:
    """Build a network of DeepFace, with drawn weights."""
    # DeepFace imports this package for its downloads, which are not used here.
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))
    module: Any = importlib.import_module(f"deepface.models.facial_recognition.tf.{module_name}")
    downloads = module.weight_utils
    former = downloads.download_weights_if_necessary, downloads.load_model_weights
    downloads.download_weights_if_necessary = lambda **_: None
    downloads.load_model_weights = lambda model, weight_file: model
    try:
        network = getattr(module, builder)(*arguments)
    finally:
        downloads.download_weights_if_necessary, downloads.load_model_weights = former
    _draw_weights(network)
    return network


@dataclass(frozen=True)
class Original:
    """A network of DeepFace, and how this package uses its weights.

    Attributes:
        module: DeepFace's module.
        builder: The function in it.
        arguments: Its arguments.
        size: Height and width of a crop.
        pixels: Scales pixels as the network was trained.
        layer: The index of the layer that gives the embedding.
        step: One number of the embedding in this many is recorded.
    """

    module: str
    builder: str
    size: tuple[int, int]
    pixels: Callable[[ImageArray], Array]
    arguments: tuple[Any, ...] = ()
    layer: int = -1
    step: int = 1

    def build(self) -> Any:
        """Build the network with drawn weights."""
        return deepface_network(self.module, self.builder, *self.arguments)

    def crops(self) -> ImageArray:
        """Three crops of the network's size."""
        return np.ascontiguousarray(
            draw_crops(3, max(self.size))[:, : self.size[0], : self.size[1]]
        )

    def embed(self, network: Any) -> npt.NDArray[Any]:
        """Embed the crops by the original; scaled to length 1, whatever the network's own."""
        keras: Any = importlib.import_module("tf_keras")
        part = keras.Model(network.inputs, network.layers[self.layer].output)
        embeddings = np.asarray(part(self.pixels(self.crops()), training=False))
        return normalized(embeddings.reshape(len(embeddings), -1))[:, :: self.step]


def _scaled(scale: float, offset: float) -> Callable[[ImageArray], Array]:
    """Scale pixels by a factor, after adding an offset."""
    return lambda crops: ((crops.astype(np.float32) + offset) * scale).astype(np.float32)


def _vgg_face_pixels(crops: ImageArray) -> Array:
    """Scale pixels for VGG-Face: red, green, blue, less the mean of each."""
    return crops.astype(np.float32) - np.array([129.1863, 104.7624, 93.5940], np.float32)


_SYMMETRIC = _scaled(1 / 128, -127.5)
DEEPFACE: dict[str, Original] = {
    "facenet128": Original("Facenet", "InceptionResNetV1", (160, 160), whitened, (128,)),
    "facenet512": Original("Facenet", "InceptionResNetV1", (160, 160), _SYMMETRIC, (512,)),
    "arcface": Original("ArcFace", "load_model", (112, 112), _SYMMETRIC),
    "ghostfacenet": Original("GhostFaceNet", "load_model", (112, 112), _SYMMETRIC),
    "openface": Original("OpenFace", "load_model", (96, 96), _scaled(1 / 255, 0)),
    "deepid": Original("DeepID", "load_model", (55, 47), _scaled(2 / 255, -127.5)),
    "vgg_face": Original("VGGFace", "base_model", (224, 224), _vgg_face_pixels, layer=-5, step=32),
}
"""DeepFace's networks by the names of this package's encoders."""


def _record_facenet_pytorch() -> None:
    import torch

    network = facenet_pytorch_network()
    shapes = [[name, list(tensor.shape)] for name, tensor in network.state_dict().items()]
    _write(
        "facenet_pytorch",
        f"facenet-pytorch 2.6.0, torch {torch.__version__}",
        shapes,
        embed_by_pytorch(network, draw_crops(3)),
    )


def _record_deepface(name: str) -> None:
    import tempfile

    original = DEEPFACE[name]
    network = original.build()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.h5")
        network.save_weights(path)
        with h5py.File(path) as file:
            weights = [
                [layer, weight, list(file[layer][weight].shape)]
                for layer in file.attrs["layer_names"]
                for weight in file[layer].attrs["weight_names"]
            ]
    _write(
        f"deepface_{name}", "DeepFace 0.0.103, tf-keras 2.21.0", weights, original.embed(network)
    )


def vggface_network() -> Any:
    """Build DeepFace's VGG-Face up to its last pooling, with drawn weights."""
    sys.modules.setdefault("gdown", types.ModuleType("gdown"))
    module: Any = importlib.import_module("deepface.models.facial_recognition.tf.VGGFace")
    whole = module.base_model()
    pools = [layer for layer in whole.layers if type(layer).__name__ == "MaxPooling2D"]
    network = module.Model(inputs=whole.layers[0].input, outputs=pools[-1].output)
    _draw_weights(network)
    return network


def keras_vggface_network() -> Any:
    """Build keras-vggface's VGG16 without top, with drawn weights.

    The package was written for Keras 2.2: modules that it imports and that are gone since are
    replaced, and its network is built by tf-keras.
    """
    keras: Any = importlib.import_module("tf_keras")
    stand_ins = {
        "keras": keras,
        "keras.layers": keras.layers,
        "keras.models": keras.models,
        "keras.backend": keras.backend,
        "keras.utils": keras.utils,
        "keras.utils.layer_utils": types.SimpleNamespace(),
        "keras.utils.data_utils": types.SimpleNamespace(get_file=None),
        "keras.engine.topology": types.SimpleNamespace(get_source_inputs=None),
        "keras_applications.imagenet_utils": types.SimpleNamespace(
            _obtain_input_shape=lambda shape, **_: shape
        ),
    }
    keras.utils.layer_utils = types.SimpleNamespace()
    former = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        module: Any = importlib.import_module("keras_vggface.models")
        network = module.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    finally:
        for name, replaced in former.items():
            sys.modules.pop(name)
            if replaced is not None:
                sys.modules[name] = replaced
    _draw_weights(network)
    return network


def vggface_pixels(crops: ImageArray) -> Array:
    """Scale pixels for keras-vggface: blue, green, red, less the mean of each."""
    means = np.array([93.5940, 104.7624, 129.1863], np.float32)
    return crops[..., ::-1].astype(np.float32) - means


def _draw_weights(network: Any) -> None:
    for layer in network.layers:
        layer.set_weights(
            [draw_weight(weight.name, tuple(weight.shape)) for weight in layer.weights]
        )


def _record_vggface(
    name: str, made_by: str, network: Any, pixels: Callable[[ImageArray], Array]
) -> None:
    weights = [
        [layer.name, weight.name, list(weight.shape)]
        for layer in network.layers
        for weight in layer.weights
    ]
    features = network(pixels(draw_crops(2, 224))).numpy()
    # The mean over the map: 25,088 numbers a picture are too many to write down.
    _write(name, made_by, weights, features.mean((1, 2)))


def _write(name: str, made_by: str, shapes: list[Any], embeddings: Array) -> None:
    RECORDS.mkdir(exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in shapes)
    numbers = ",\n".join(
        "  [" + ", ".join(f"{value:.7g}" for value in row) + "]" for row in embeddings
    )
    (RECORDS / f"{name}.json").write_text(
        f'{{"made_by": "{made_by}",\n"weights": [\n{lines}\n],\n"embeddings": [\n{numbers}\n]}}\n'
    )


if __name__ == "__main__":
    recordings: dict[str, Callable[[], None]] = {
        "facenet_pytorch": _record_facenet_pytorch,
        **{f"deepface_{name}": partial(_record_deepface, name) for name in DEEPFACE},
        "deepface_vggface": lambda: _record_vggface(
            "deepface_vggface",
            "DeepFace 0.0.103, tf-keras 2.21.0",
            vggface_network(),
            _vgg_face_pixels,
        ),
        "keras_vggface": lambda: _record_vggface(
            "keras_vggface",
            "keras-vggface 0.6, tf-keras 2.21.0",
            keras_vggface_network(),
            vggface_pixels,
        ),
    }
    recordings[sys.argv[1]]()
