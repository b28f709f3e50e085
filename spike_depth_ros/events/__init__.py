"""Bytes -> events -> spike tensors: decoding, windows, accumulation and the camera model."""
