"""Bytes -> events -> spike tensors: decoding, windows, accumulation and the camera model.

wire      a ROS message -> header and payload; `EventStream`: all messages of a topic -> events
codecs    a payload -> events, one `Decoder` per stream
jumps     rejects wrong event times and detects jumps of the clock
windows   events -> windows of equal length
spikes    a window -> spike tensor
camera    calibration: pixels to rays
config    configuration that travels with a checkpoint
"""
