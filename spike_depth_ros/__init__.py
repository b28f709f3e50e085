"""Metric depth from event cameras by a spiking transformer, for ROS 2."""

import os

__version__ = '0.1.0'

# Before torch and numba load OpenMP: threads that spin for long starve the rest of the robot, a
# short spin bridges the gaps between layers. What the environment says already is left alone.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('GOMP_SPINCOUNT', '3000')
