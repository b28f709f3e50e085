"""The readout of an event sensor: jitter of event times, and a bus of limited rate.

Events wait in one queue ordered in time; each occupies the bus for 1 / rate. An event is stamped
when it is read out, as in sensors that stamp at the periphery. An event that would wait too long
is lost, and its row loses its events for some time.
"""

from __future__ import annotations

import numpy as np

from spike_depth_ros.events.arrays import EVENT_DTYPE, read_only
from spike_depth_ros.events.compiled import compiled
from spike_depth_ros.sim.sensors import EventCameraConfig
from spike_depth_ros.sim.sorting import sorted_by_time

FOREVER_NS = np.iinfo(np.int64).max


class Readout:
    """The queue between the pixels and the output of the sensor."""

    def __init__(self, config: EventCameraConfig, seed: int, run: int = 0) -> None:
        """Builds an empty queue.

        Args:
            config: `jitter_us`, `readout_mev_s`, `readout_delay_us` and `row_silence_us`.
            seed: determines the jitter, together with `run`.
            run: number of the recording.
        """
        self.lost = 0
        self._jitter_ns = config.jitter_us * 1e3
        self._service_ns = 1e3 / config.readout_mev_s if config.readout_mev_s else 0.0
        self._limits_ns = (config.readout_delay_us * 1e3, config.row_silence_us * 1e3)
        self._rng = np.random.default_rng((seed, 0xE9, run))
        self._free_ns = 0.0
        self._silent_until_ns = np.zeros(config.camera.height, np.int64)
        self._waiting = self._late = np.empty(0, EVENT_DTYPE)

    @property
    def is_ideal(self) -> bool:
        """Returns True if events pass unchanged."""
        return not (self._jitter_ns or self._service_ns)

    def read(self, events: np.ndarray, until_ns: int) -> np.ndarray:
        """Queues new events and returns those that are read out before a time.

        Args:
            events: (N,) `EVENT_DTYPE` in any order, none before the previous `until_ns`.
            until_ns: the time; later calls add no earlier event. Events read out after it are
                returned by a later call.

        Returns:
            (M,) read-only `EVENT_DTYPE` ordered in time.
        """
        if self.is_ideal:
            return read_only(sorted_by_time(events))
        if self._jitter_ns:
            events = events.copy()
            events['t_ns'] += (self._rng.random(len(events)) * self._jitter_ns).astype(np.int64)
        joined = np.concatenate([self._waiting, events])
        if len(joined):
            joined = sorted_by_time(joined)
        cut = int(np.searchsorted(joined['t_ns'], until_ns))
        self._waiting, served = joined[cut:].copy(), joined[:cut]
        if self._service_ns:
            kept, self._free_ns = _serve(
                served, self._silent_until_ns, self._free_ns, self._service_ns, *self._limits_ns
            )
            self.lost += len(served) - kept
            served = np.concatenate([self._late, served[:kept]])
            cut = int(np.searchsorted(served['t_ns'], until_ns))
            self._late, served = served[cut:].copy(), served[:cut]
        return read_only(served.copy())


@compiled()
def _serve(events, silent_until_ns, free_ns, service_ns, delay_ns, silence_ns):
    """Moves the events that are read to the front and sets their times to the readout times.

    Returns:
        The number of events that are read, and the time at which the bus is free again.
    """
    kept = 0
    for i in range(len(events)):
        t_ns, row = events[i].t_ns, events[i].y
        if t_ns < silent_until_ns[row]:
            continue
        if free_ns - t_ns > delay_ns:
            silent_until_ns[row] = t_ns + np.int64(silence_ns)
            continue
        start_ns = max(free_ns, np.float64(t_ns))
        events[kept] = events[i]
        events[kept].t_ns = np.int64(start_ns)
        free_ns = start_ns + service_ns
        kept += 1
    return kept, free_ns
