"""Recordings of events, whatever their format: read, written and turned into one another."""

from spike_depth_ros.recordings.bag_writer import BagWriter
from spike_depth_ros.recordings.convert import Conversion, convert_to, is_h5
from spike_depth_ros.recordings.h5_writer import EventsH5Writer
from spike_depth_ros.recordings.open import open_source
from spike_depth_ros.recordings.source import BagError, EventSource, RawMessage, Topic
from spike_depth_ros.recordings.summary import summarise

__all__ = [
    'BagError',
    'BagWriter',
    'Conversion',
    'EventSource',
    'EventsH5Writer',
    'RawMessage',
    'Topic',
    'convert_to',
    'is_h5',
    'open_source',
    'summarise',
]
