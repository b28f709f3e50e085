"""Metric depth from event cameras by a spiking transformer, for ROS 2."""

__version__ = '0.1.0'
