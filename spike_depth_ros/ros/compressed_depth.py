"""Depth images as compressed_depth_image_transport writes and reads them (PNG and RVL)."""

from __future__ import annotations

import array
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.ros.messages import MAX_MM, millimetres

FORMATS = ('png', 'rvl')
"""Codecs of the 16-bit image: PNG is smaller, RVL takes a fraction of the time."""

NIBBLES_PER_WORD = 8
WORST_NIBBLES_PER_PIXEL = 8
"""A difference of 17 bits takes six nibbles; an isolated pixel adds two run lengths of one."""


class Quantization(NamedTuple):
    """Inverse-depth codes A / z + B of compressedDepth, A = q (q + 1), B = 1 - A / max."""

    q: float
    max_m: float


def compressed_depth(
    header: Header,
    depth_m: np.ndarray,
    encoding: str,
    quantization: Quantization,
    codec: str = 'png',
) -> CompressedImage:
    """Compresses a depth image into what compressed_depth_image_transport reads.

    The data is {int32 format = 0, float32 A, float32 B}, followed by the compressed 16-bit image.

    Args:
        header: of the frame.
        depth_m: (H, W) depth along z; what is not finite becomes 0, no depth.
        encoding: '32FC1' stores inverse-depth codes, '16UC1' stores millimetres.
        quantization: of the inverse-depth codes.
        codec: one of `FORMATS`.
    """
    if encoding == '16UC1':
        a = b = 0.0
        codes = millimetres(depth_m)
    else:
        a = quantization.q * (quantization.q + 1.0)
        b = 1.0 - a / quantization.max_m
        codes = inverse_depth_codes(depth_m, a, b, quantization.max_m)
    data = _png(codes) if codec == 'png' else rvl_encode(codes)
    message = CompressedImage(header=header, format=f'{encoding}; compressedDepth {codec}')
    message.data = array.array('B', struct.pack('<iff', 0, a, b) + data)
    return message


def inverse_depth_codes(depth_m: np.ndarray, a: float, b: float, max_m: float) -> np.ndarray:
    """Quantises (H, W) metres to uint16 codes a / z + b; 0 where no depth up to `max_m` fits."""
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = a / depth_m + b
        fits = np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= max_m)
        return np.where(fits & (inverse <= MAX_MM), inverse, 0).astype(np.uint16)


def rvl_encode(image: np.ndarray) -> bytes:
    """Compresses an image by RVL, lossless (Wilson, "Fast Lossless Depth Image Compression").

    The stream alternates run lengths of zero and of non-zero pixels; each non-zero pixel is the
    zigzag-coded difference to the one before. Numbers are written as nibbles of three bits and a
    continuation bit, eight nibbles to a 32-bit word.

    Args:
        image: (H, W) uint16.

    Returns:
        uint32 width and height, then the words, all little-endian.
    """
    height, width = image.shape
    words = np.empty(image.size * WORST_NIBBLES_PER_PIXEL // NIBBLES_PER_WORD + 1, np.uint32)
    count = _encode(np.ascontiguousarray(image).ravel(), words)
    return struct.pack('<II', width, height) + words[:count].astype('<u4', copy=False).tobytes()


@compiled()
def _encode(pixels: Any, words: Any) -> int:
    """Writes the nibbles of all pixels into `words`; returns the number of words."""
    at, nibbles, word, before, count = 0, 0, np.uint32(0), 0, len(pixels)
    k = 0
    while k < count:
        first = k
        while k < count and pixels[k] == 0:
            k += 1
        filled = k
        while k < count and pixels[k] != 0:
            k += 1
        for j in range(-2, k - filled):
            if j == -2:
                number = filled - first
            elif j == -1:
                number = k - filled
            else:
                now = int(pixels[filled + j])
                number = (now - before) << 1 if now >= before else ((before - now) << 1) - 1
                before = now
            more = True
            while more:
                nibble = number & 7
                number >>= 3
                more = number != 0
                word = np.uint32((word << np.uint32(4)) | np.uint32(nibble | (8 if more else 0)))
                nibbles += 1
                if nibbles == NIBBLES_PER_WORD:
                    words[at] = word
                    at, nibbles, word = at + 1, 0, np.uint32(0)
    if nibbles:
        words[at] = np.uint32(word << np.uint32(4 * (NIBBLES_PER_WORD - nibbles)))
        at += 1
    return at


def _png(codes: np.ndarray) -> bytes:
    _, png = cv2.imencode('.png', codes, (cv2.IMWRITE_PNG_COMPRESSION, 1))
    return png.tobytes()
