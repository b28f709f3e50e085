"""Recordings of events in any format: read, written and converted."""

from spike_depth_ros.recordings.bag_writer import BagWriter
from spike_depth_ros.recordings.convert import Conversion, convert_to, is_h5
from spike_depth_ros.recordings.h5_writer import EventsH5Writer
from spike_depth_ros.recordings.open import open_source, recordings_in
from spike_depth_ros.recordings.recording import Recording, open_recording
from spike_depth_ros.recordings.source import BagError, EventSource, RawMessage, Topic
from spike_depth_ros.recordings.summary import summarise

__all__ = [
    'BagError',
    'BagWriter',
    'Conversion',
    'EventSource',
    'EventsH5Writer',
    'RawMessage',
    'Recording',
    'Topic',
    'convert_to',
    'is_h5',
    'open_recording',
    'open_source',
    'recordings_in',
    'summarise',
]
