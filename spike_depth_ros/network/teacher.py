"""Teachers: networks that see the colour image, and whose features a student copies.

A teacher is frozen, always in eval mode, and belongs to nobody's optimiser or checkpoint. It
takes an RGB image on the student's grid and gives feature maps at the student's stride of 8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spike_depth_ros.events.config import require
from spike_depth_ros.network.baselines import MAPS, UNetBody, padded
from spike_depth_ros.network.head import Prediction, to_prediction

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH_PX, STRIDE_PX = 14, 8
DINO_LAYERS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}
"""Number of blocks -> the (0-based) blocks whose output DINOv2's own depth heads read."""


class TeacherError(ValueError):
    """A teacher cannot be loaded, or is not what was expected."""


class Teacher(Protocol):
    """RGB to features."""

    channels: tuple[int, ...]  # of each feature map
    identity: str  # changes whenever the features do

    def __call__(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) uint8, multiples of 8 -> maps of (B, channels[i], H/8, W/8) float32."""


def normalised(image: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 RGB to float32 with ImageNet's mean 0 and variance 1."""
    mean, std = (
        torch.tensor(v, device=image.device).view(1, 3, 1, 1)
        for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (image.float() / 255 - mean) / std


class DinoTeacher(nn.Module):
    """DINOv2 (Oquab et al., TMLR 2024) on the image enlarged 14/8 = 1.75 times.

    Then its grid of 14-pixel patches is the student's grid of stride 8: no feature is resampled
    (arXiv 2404.17335, section 3.4).

    Args:
        source: a hub id ('facebook/dinov2-small') or a folder with config.json and weights.

    Raises:
        TeacherError: not found, not DINOv2, or of an unknown number of blocks.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        from transformers import AutoConfig, Dinov2Backbone

        try:
            config = AutoConfig.from_pretrained(source)
            if config.model_type != 'dinov2' or config.patch_size != PATCH_PX:
                raise TeacherError(
                    f'{source!r} is {config.model_type!r}, expected dinov2 with patches of 14 px'
                )
            layers = DINO_LAYERS.get(config.num_hidden_layers)
            if layers is None:
                raise TeacherError(
                    f'{source!r} has {config.num_hidden_layers} blocks, '
                    f'expected one of {sorted(DINO_LAYERS)}'
                )
            # index 0 of a backbone is the patch embedding
            backbone = Dinov2Backbone.from_pretrained(source, out_indices=[n + 1 for n in layers])
        except OSError as error:
            raise TeacherError(
                f'cannot load the teacher {source!r} ({error}); give a hub id such as '
                "'facebook/dinov2-small' or a folder with config.json and model.safetensors"
            ) from error
        self.backbone = backbone
        self.channels = (config.hidden_size,) * len(layers)
        digest = hashlib.sha256()
        for parameter in backbone.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        self.identity = f'dinov2:{source}:{digest.hexdigest()[:16]}'
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> DinoTeacher:
        """Does nothing: a teacher stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Teacher`."""
        height, width = (n // STRIDE_PX * PATCH_PX for n in _grid_size(image))
        large = F.interpolate(
            normalised(image), (height, width), mode='bilinear', align_corners=False
        )
        return list(self.backbone(large).feature_maps)


@dataclasses.dataclass(frozen=True)
class RgbUNetConfig:
    """A U-Net that reads the colour image.

    Attributes:
        width: channels of the first level.
    """

    width: int = 20

    def __post_init__(self) -> None:
        require(1 <= self.width <= 2048, 'width', self.width, '1 to 2048')


class RgbUNet(nn.Module):
    """Depth from the colour image: trained like any network, to teach the one that sees events.

    It is in the table of networks so that the same command trains and measures it, but it is
    fed the image, not spikes.
    """

    reads = 'image'

    def __init__(self, config: RgbUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.body = UNetBody(3, config.width)
        self.head = nn.Conv2d(config.width, MAPS, 1)

    def forward(self, image: Tensor) -> Prediction:
        """(B, 3, H, W) uint8 RGB -> `Prediction` of (B, 1, H, W) maps.

        Raises:
            ValueError: the input is not an image.
        """
        height, width = image.shape[-2:]
        fine, _ = self.body(padded(normalised(_checked(image))))
        return to_prediction(self.head(fine)[..., :height, :width], height, width)

    def step(self, image: Tensor, state: Any = None) -> tuple[Prediction, None]:
        """As `forward`: this network has no memory."""
        return self(image), None

    def features(self, image: Tensor) -> list[Tensor]:
        """What it knows at stride 8: its deepest map, and its last one averaged over patches."""
        fine, deep = self.body(padded(normalised(_checked(image))))
        return [deep, F.avg_pool2d(fine, STRIDE_PX)]


class RgbTeacher(nn.Module):
    """A trained `RgbUNet`, frozen.

    Args:
        network: with its weights.
        identity: of the weights.
    """

    def __init__(self, network: RgbUNet, identity: str) -> None:
        super().__init__()
        self.network = network
        self.channels: tuple[int, ...] = (8 * network.config.width, network.config.width)
        self.identity = identity
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> RgbTeacher:
        """Does nothing: a teacher stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Teacher`."""
        _grid_size(image)
        return self.network.features(image)


def rgb_teacher(source: str) -> RgbTeacher:
    """Loads the checkpoint of an `rgb_unet` as a teacher.

    Raises:
        TeacherError: the checkpoint holds another network.
        CheckpointError: it cannot be read.
    """
    from spike_depth_ros.network.checkpoint import load_checkpoint

    network = load_checkpoint(source).model
    if not isinstance(network, RgbUNet):
        raise TeacherError(
            f'{source!r} holds a {type(network).__name__}, a teacher must be an rgb_unet: '
            'train one with `spike_depth train config/train/rgb_teacher.yaml`'
        )
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    return RgbTeacher(network, f'rgb:{digest}')


TEACHERS: dict[str, Callable[[str], Teacher]] = {'dinov2': DinoTeacher, 'rgb': rgb_teacher}
"""Teacher name -> factory that takes where its weights are."""


class CachedTeacher:
    """Remembers on disk what a teacher said of each image, as float16.

    The key is the image itself, so that an augmented image is another one, and the teacher's
    identity. A damaged file is made again.

    Args:
        teacher: asked about images not seen before.
        folder: of the cache; may be shared and deleted at any time.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher = teacher
        self.channels, self.identity = teacher.channels, teacher.identity
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, image: Tensor) -> list[Tensor]:
        """See `Teacher`."""
        files = [self._file(one) for one in image]
        known = [_read(file, len(self.channels)) for file in files]
        missing = [i for i, maps in enumerate(known) if maps is None]
        if missing:
            fresh = [maps.half().cpu() for maps in self.teacher(image[missing])]
            for place, i in enumerate(missing):
                known[i] = [maps[place] for maps in fresh]
                _write(files[i], known[i])
        columns = zip(*(maps for maps in known if maps is not None), strict=True)
        return [torch.stack(maps).float().to(image.device) for maps in columns]

    def to(self, device: torch.device) -> CachedTeacher:
        """Moves the teacher that fills the cache."""
        self.teacher.to(device)  # type: ignore[attr-defined]
        return self

    def _file(self, image: Tensor) -> Path:
        pixels = image.cpu().contiguous().numpy()
        digest = hashlib.sha256(f'{self.identity}:{pixels.shape}:'.encode() + pixels.tobytes())
        return self.folder / f'{digest.hexdigest()[:32]}.safetensors'


def _read(file: Path, count: int) -> list[Tensor] | None:
    if not file.is_file():
        return None
    try:
        stored = load_file(file)
        return [stored[str(i)] for i in range(count)]
    except (SafetensorError, KeyError, OSError):
        return None  # damaged: it is only a cache


def _write(file: Path, maps: list[Tensor] | None) -> None:
    part = file.with_suffix(f'.{os.getpid()}.part')
    save_file({str(i): m.contiguous() for i, m in enumerate(maps or [])}, part)
    part.replace(file)


def _checked(image: Tensor) -> Tensor:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(
            f'got {tuple(image.shape)}, expected an RGB image (B, 3, H, W): this network is a '
            'teacher and reads no events'
        )
    return image


def _grid_size(image: Tensor) -> tuple[int, int]:
    height, width = _checked(image).shape[-2:]
    if height % STRIDE_PX or width % STRIDE_PX:
        raise ValueError(f'image is {width}x{height}, expected multiples of {STRIDE_PX}')
    return height, width
