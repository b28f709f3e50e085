"""Teachers: the true DINOv2 architecture without its weights, and the RGB network."""

import pytest
import torch

from spike_depth_ros.network import teacher as teachers
from spike_depth_ros.network.teacher import (
    CachedTeacher,
    DinoTeacher,
    RgbTeacher,
    RgbUNet,
    RgbUNetConfig,
    TeacherError,
)

torch.set_num_threads(1)


def image(height=32, width=48, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope='module')
def dino_folder(tmp_path_factory):
    """A seeded DINOv2 of 12 blocks and 24 channels, as `from_pretrained` finds it."""
    from transformers import Dinov2Backbone, Dinov2Config

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=12, num_attention_heads=2,
                          image_size=224, patch_size=14)  # fmt: skip
    folder = tmp_path_factory.mktemp('dino')
    Dinov2Backbone(config).save_pretrained(folder)
    return folder


def test_dino_gives_four_maps_on_the_students_grid(dino_folder):
    teacher = DinoTeacher(str(dino_folder))
    maps = teacher(image(32, 48))
    assert [m.shape for m in maps] == [(2, 24, 4, 6)] * 4
    assert teacher.channels == (24,) * 4
    assert all(m.isfinite().all() and m.std() > 0 for m in maps)


def test_dino_maps_are_blocks_2_5_8_11_of_the_enlarged_image(dino_folder):
    from transformers import Dinov2Model

    teacher = DinoTeacher(str(dino_folder))
    whole = Dinov2Model.from_pretrained(dino_folder).eval()
    x = image(16, 24, batch=1)
    pixels = x.float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    large = torch.nn.functional.interpolate((pixels - mean) / std, (28, 42), mode='bilinear')
    with torch.no_grad():
        hidden = whole(large, output_hidden_states=True).hidden_states
        for block, got in zip((2, 5, 8, 11), teacher(x), strict=True):
            tokens = whole.layernorm(hidden[block + 1])[0, 1:]  # without the class token
            expected = tokens.view(2, 3, 24).permute(2, 0, 1)
            torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_is_frozen_and_stays_in_eval_mode(dino_folder):
    for teacher in (DinoTeacher(str(dino_folder)), RgbTeacher(RgbUNet(RgbUNetConfig(4)), 'x')):
        teacher.train()
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad for p in teacher.parameters())
        assert not any(m.requires_grad for m in teacher(image()))


def test_what_is_no_dino_is_refused(tmp_path):
    with pytest.raises(TeacherError, match='hub id'):
        DinoTeacher(str(tmp_path / 'nothing'))
    (tmp_path / 'config.json').write_text('{"model_type": "vit", "patch_size": 14}')
    with pytest.raises(TeacherError, match="'vit'"):
        DinoTeacher(str(tmp_path))
    (tmp_path / 'config.json').write_text(
        '{"model_type": "dinov2", "patch_size": 14, "num_hidden_layers": 5}'
    )
    with pytest.raises(TeacherError, match='5 blocks'):
        DinoTeacher(str(tmp_path))


def test_rgb_teacher_gives_maps_at_stride_8():
    torch.manual_seed(0)
    teacher = RgbTeacher(RgbUNet(RgbUNetConfig(4)), 'x')
    assert [m.shape for m in teacher(image(32, 48))] == [(2, 32, 4, 6), (2, 4, 4, 6)]
    assert teacher.channels == (32, 4)
    with pytest.raises(ValueError, match='multiples of 8'):
        teacher(image(33, 48))


def test_rgb_network_reads_images_only():
    torch.manual_seed(0)
    network = RgbUNet(RgbUNetConfig(4)).eval()
    for maps in network(image(33, 50)):
        assert maps.shape == (2, 1, 33, 50)
    with pytest.raises(ValueError, match='reads no events'):
        network(torch.zeros(4, 1, 2, 16, 16, dtype=torch.uint8))


class Counting:
    channels = (2,)
    identity = 'counting'

    def __init__(self):
        self.asked = 0

    def __call__(self, image):
        self.asked += len(image)
        return [image[:, :2, ::8, ::8].float()]


def test_the_cache_asks_once_per_image(tmp_path):
    teacher = Counting()
    cached = CachedTeacher(teacher, tmp_path)
    first, other = image(seed=1), image(seed=2)
    torch.testing.assert_close(cached(first)[0], first[:, :2, ::8, ::8].float())
    cached(first)
    assert teacher.asked == 2
    mixed = torch.stack([other[0], first[1]])
    torch.testing.assert_close(cached(mixed)[0], mixed[:, :2, ::8, ::8].float())
    assert teacher.asked == 3
    next(tmp_path.iterdir()).write_bytes(b'cut off')
    cached(first), cached(mixed)
    assert teacher.asked == 4
    torch.testing.assert_close(cached(first)[0], first[:, :2, ::8, ::8].float())


def test_another_teacher_has_another_cache(tmp_path):
    one, two = Counting(), Counting()
    two.identity = 'other'
    CachedTeacher(one, tmp_path)(image())
    CachedTeacher(two, tmp_path)(image())
    assert two.asked == 2


def test_the_table_knows_both():
    assert set(teachers.TEACHERS) == {'dinov2', 'rgb'}
