"""A recording as arrays: the same from every format, in pieces."""

import subprocess
import sys

import numpy as np
import pytest
from recordings import (
    EPOCH_NS,
    EVENT_PACKET,
    H,
    W,
    dsec_folder,
    some_events,
    write_bag,
    write_h5,
    write_m3ed,
    write_ros1,
)

from spike_depth_ros.events.camera import Camera
from spike_depth_ros.recordings import BagError, BagWriter, open_recording
from spike_depth_ros.recordings.packets import Packetiser

MAKERS = {'drive': write_bag, 'a.bag': write_ros1, 'a.h5': write_h5, 'a_data.h5': write_m3ed}


@pytest.mark.parametrize('name', MAKERS)
def test_events_of_every_format(tmp_path, name):
    events = some_events(2000)
    MAKERS[name](tmp_path / name, events)
    with open_recording(tmp_path / name) as recording:
        assert recording.geometry == (H, W)
        np.testing.assert_array_equal(np.concatenate(list(recording.events())), events)


def test_a_part_of_the_events(tmp_path):
    events = some_events(9000)
    with open_recording(write_h5(tmp_path / 'a.h5', events)) as recording:
        part = np.concatenate(list(recording.events(0.005, 0.01)))
    since_ns = events['t_ns'] - events['t_ns'][0]
    np.testing.assert_array_equal(part, events[(since_ns >= 5e6) & (since_ns < 15e6)])


def test_images_depth_and_camera_of_a_data_set(tmp_path):
    folder = dsec_folder(tmp_path / 'zurich', some_events())
    with open_recording(folder) as recording:
        images, depth = list(recording.images()), list(recording.depth())
        camera = recording.camera()
    assert [stamp for stamp, _ in images] == [
        EPOCH_NS // 1000 * 1000 + ms * 10**6 for ms in (2, 7)
    ]
    assert images[0].pixels.shape == (6, 8, 3)
    assert images[0].pixels[0, 0].tolist() == [3, 2, 1]  # OpenCV wrote BGR
    np.testing.assert_array_equal(depth[1].pixels[0, :3], np.float32([np.nan, 11.0, 5.5]))
    assert camera == Camera(W, H, 20.0, 21.0, 19.5, 5.5, 'plumb_bob', (-0.1, 0.01, 0.0, 0.0))


def test_what_a_bag_lacks_is_named(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for packet in Packetiser(H, W, 'f').repack(some_events(9), 7):
            bag.add_raw('/e', EVENT_PACKET, 7, packet.cdr)
        for topic in ('/a', '/b'):
            bag.add_image(topic, 8, np.arange(6, dtype=np.uint8).reshape(2, 3), 'f')
        bag.add_image('/my/depth', 9, np.uint16([[0, 1500]]), 'f')
    with open_recording(tmp_path / 'drive') as recording:
        assert recording.camera() is None
        with pytest.raises(BagError, match=r"\['/a', '/b'\] topics of images: give one"):
            next(recording.images())
        assert next(recording.images('/b')).pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
        np.testing.assert_array_equal(next(recording.depth()).pixels, np.float32([[np.nan, 1.5]]))
        with pytest.raises(BagError, match="no topic '/c'"):
            next(recording.images('/c'))
        with pytest.raises(BagError, match='mono8, expected 32FC1'):
            next(recording.depth('/a'))


def test_a_reader_that_ends_early_is_no_error(tmp_path):
    """As in `spike_depth info X | head`."""
    path = write_bag(tmp_path / 'drive', some_events(100))
    command = [sys.executable, '-m', 'spike_depth_ros', 'info', str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait() == 141
