"""RViz opens in the frame of the events; a script that prints its arguments plays RViz."""

import os
import subprocess
import sys

import pytest
from graph import Driver, event_packet, some_events

RUN = """
from spike_depth_ros.ros import depth_rviz
depth_rviz.WAIT_S = {wait_s}
depth_rviz.main()
"""


@pytest.fixture
def open_rviz(tmp_path):
    rviz = tmp_path / 'rviz2'
    rviz.write_text('#!/bin/sh\necho "rviz2 $@"\n')
    rviz.chmod(0o755)

    def open_rviz(wait_s, path=tmp_path):
        return subprocess.Popen(
            [sys.executable, '-c', RUN.format(wait_s=wait_s), '-d', 'x.rviz', '--ros-args', '-r',
             'events:=/events'],
            env={**os.environ, 'PATH': str(path)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return open_rviz


def test_the_frame_is_that_of_the_events(graph, open_rviz):
    rviz = open_rviz(wait_s=60.0)
    driver = Driver(graph)
    assert driver.ready()
    driver.publisher.publish(b'damaged')
    while rviz.poll() is None:
        driver.publisher.publish(event_packet(some_events(0, 5), frame_id='camera'))
        graph.spin_for(0.1)
    assert rviz.stdout.read() == 'rviz2 -f camera -d x.rviz --ros-args -r events:=/events\n'


def test_without_events_it_opens_all_the_same(open_rviz):
    printed, _ = open_rviz(wait_s=0.1).communicate(timeout=60)
    assert printed == 'rviz2 -d x.rviz --ros-args -r events:=/events\n'


def test_without_rviz_it_says_so(open_rviz, tmp_path):
    rviz = open_rviz(wait_s=0.1, path=tmp_path / 'nowhere')
    _, errors = rviz.communicate(timeout=60)
    assert rviz.returncode == 1
    assert 'depth_rviz: cannot start rviz2: ' in errors
