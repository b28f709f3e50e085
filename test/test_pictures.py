"""Pictures and pages: a few pixels and tags by hand."""

import cv2
import numpy as np
import pytest

from spike_depth_ros.estimation.pictures import (
    BEYOND_RGB,
    COLOR_MAPS,
    OFF_RGB,
    ON_RGB,
    UNKNOWN_RGB,
    beside,
    cloud_picture,
    confidence_colors,
    depth_colors,
    event_colors,
    write_picture,
)
from spike_depth_ros.learning import pages


@pytest.mark.parametrize('color_map', COLOR_MAPS)
def test_depth_is_painted_on_a_logarithmic_scale(color_map):
    depth_m = np.array([[1.0, 100.0**0.2, 100.0, 0.1, 1e4]], np.float32)
    shades = np.array([[255, 204, 0, 255, 0]], np.uint8)  # a fifth of the way: 4/5 of 255
    expected = cv2.applyColorMap(shades, COLOR_MAPS[color_map])[..., ::-1]
    np.testing.assert_array_equal(depth_colors(depth_m, color_map, 1.0, 100.0), expected)


def test_marks_have_colours_of_their_own():
    colors = depth_colors(
        np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32), 'turbo', 1.0, 9.0
    )
    assert tuple(colors[0, 0]) == UNKNOWN_RGB
    assert tuple(colors[0, 1]) == BEYOND_RGB
    np.testing.assert_array_equal(colors[0, 2], colors[0, 3])  # too near is as near as can be


def test_the_more_frequent_polarity_wins():
    spikes = np.zeros((3, 2, 1, 4), np.uint8)
    spikes[:, 1, 0, 0] = 200  # ON, more than a byte in all
    spikes[1, 0, 0, 1] = 1
    spikes[0, :, 0, 2] = 5
    colors = event_colors(spikes)
    assert [tuple(c) for c in colors[0]] == [ON_RGB, OFF_RGB, ON_RGB, (255, 255, 255)]


def test_confidence_goes_from_dark_to_bright():
    colors = confidence_colors(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)).astype(int)
    assert colors[0, 0].sum() < colors[0, 1].sum() < colors[0, 2].sum()
    np.testing.assert_array_equal(colors[0, 3], colors[0, 0])


def test_near_points_hide_far_ones():
    points = np.array([[0, 0, 20], [0, 0, 20.0001], [np.nan, 0, 5], [0, 0, 900]], np.float32)
    colors = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [0, 0, 250]], np.uint8)
    picture = cloud_picture(points, colors)
    seen = {tuple(c) for c in picture.reshape(-1, 3)}
    assert seen == {(18, 18, 18), (250, 0, 0)}


def test_pictures_stand_in_a_row():
    row = beside([np.zeros((2, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)], 8, gap_px=3)
    assert row.shape == (8, 16 + 3 + 8, 3)
    assert (row[:, 16:19] == 255).all()


def test_a_picture_that_cannot_be_written_is_told(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = (1, 2, 3)
    write_picture(tmp_path / 'a.png', picture)
    assert cv2.imread(str(tmp_path / 'a.png'))[0, 0].tolist() == [3, 2, 1]
    with pytest.raises(OSError, match='cannot write the picture'):
        write_picture(tmp_path / 'none' / 'a.png', picture)


def test_a_page_is_escaped_and_complete(tmp_path):
    rows = [('a<b', 1234), ('c', 0.123456), ('d', 12345.6)]
    parts = [
        pages.Table(('what', 'value'), rows),
        pages.Paragraph('<p>'),
        pages.Row([pages.Figure('x.webm', 'c'), pages.Figure('y.png', '"d"')]),
    ]
    path = tmp_path / 'page.html'
    pages.write_page(path, 'A & B', 'lead', [pages.Section('S', parts)])
    text = path.read_text(encoding='utf-8')
    assert '<title>A &amp; B</title>' in text
    assert '<th>what</th>' in text
    assert '<td>a&lt;b</td><td class="number">1,234</td>' in text
    assert '<td class="number">0.123</td>' in text
    assert '<td class="number">12,346</td>' in text
    assert '<p>&lt;p&gt;</p>' in text
    assert '<video src="x.webm"' in text
    assert '<img src="y.png" alt="&#34;d&#34;">' in text
    assert 'http' not in text, 'nothing from the network'
