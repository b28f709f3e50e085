"""Writes rosbag2 folders (mcap or sqlite3) with the definitions of all their messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_depth_ros.events.atomic_write import PartialPath
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.events.wire import Packet
from spike_depth_ros.recordings.messages import (
    CAMERA_INFO,
    IMAGE,
    ODOMETRY,
    TF,
    camera_info_cdr,
    image_cdr,
    new_typestore,
    odometry_cdr,
    transform_cdr,
)
from spike_depth_ros.recordings.packets import Packetiser
from spike_depth_ros.recordings.source import (
    EVENT_PACKET,
    EVENTS_TOPIC,
    FRAME_ID,
    BagError,
    Target,
)

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore

STORAGES = ('mcap', 'sqlite3')
STATIC_DEPTH = 1000


class BagWriter(Target):
    """A rosbag2 folder (format version 9) that appears under its name only when complete.

    What an interrupted run leaves is a hidden folder `.NAME.partial`, which the next run
    replaces. Messages of one topic come in time order; topics may come in any order.

    Attributes:
        counts: messages written, by topic.
        undefined: messages left out because the definition of their type is unknown, by topic.
    """

    def __init__(
        self,
        path: str | Path,
        storage: str = 'mcap',
        encoding: str = 'evt3',
        events_topic: str = EVENTS_TOPIC,
        frame_id: str = FRAME_ID,
    ) -> None:
        """Opens the temporary folder.

        Args:
            path: folder to create.
            storage: one of `STORAGES`.
            encoding: of the events, 'evt3' or 'mono'.
            events_topic: topic of `add_events`.
            frame_id: frame of `add_events`.

        Raises:
            BagError: an unknown storage, or the folder exists or cannot be created.
        """
        from rosbags.rosbag2 import StoragePlugin, Writer

        if storage not in STORAGES:
            raise BagError(f'storage is {storage!r}, expected one of {list(STORAGES)}')
        self.path = Path(path)
        if self.path.exists():
            raise BagError(f'{self.path} exists already: remove it or choose another name')
        plugin = StoragePlugin[storage.upper()]
        try:
            self._partial = PartialPath(self.path)
            # rosbags names the files after their folder, so the folder has its final name already
            self._folder = self._partial.path / self.path.name
            self._writer = Writer(self._folder, version=9, storage_plugin=plugin)
            self._writer.open()
        except OSError as error:
            raise BagError(f'cannot write {self.path}: {error}') from error
        self._store = new_typestore()
        self._connections: dict[str, Connection | None] = {}
        self._encoding, self._events_topic, self._frame_id = encoding, events_topic, frame_id
        self._packetiser: Packetiser | None = None
        self._repackers: dict[tuple[str, int, int, str], Packetiser] = {}
        self.counts: dict[str, int] = {}
        self.undefined: dict[str, int] = {}

    def add_events(self, events: NDArray[Any], height: int, width: int) -> None:
        """Appends events, (N,) `EVENT_DTYPE` in stream order, of a sensor of that size [px]."""
        if self._packetiser is None:
            self._packetiser = Packetiser(height, width, self._frame_id, self._encoding)
        for packet in self._packetiser.push(events):
            self.add_raw(self._events_topic, EVENT_PACKET, packet.stamp_ns, packet.cdr)

    def add_event_message(
        self, topic: str, stamp_ns: int, packet: Packet, events: NDArray[Any]
    ) -> None:
        """Appends the events of one message, encoded again; its stamps, frame and topic stay.

        Args:
            topic: where it was published.
            stamp_ns: when it was recorded [ns].
            packet: the message; its payload is not used.
            events: (N,) `EVENT_DTYPE` of its payload.
        """
        sensor = (packet.height, packet.width, packet.frame_id)
        stream = (topic, *sensor)
        if stream not in self._repackers:
            self._repackers[stream] = Packetiser(*sensor, self._encoding)
        for repacked in self._repackers[stream].repack(events, packet.stamp_ns):
            self.add_raw(topic, EVENT_PACKET, stamp_ns, repacked.cdr)

    def add_image(self, topic: str, stamp_ns: int, image: NDArray[Any], frame_id: str) -> None:
        """Appends an image: (H, W) mono8/mono16, or (H, W, 3) rgb8."""
        self.add_raw(topic, IMAGE, stamp_ns, image_cdr(stamp_ns, frame_id, image))

    def add_depth_32fc1(
        self, topic: str, stamp_ns: int, depth_m: NDArray[Any], frame_id: str
    ) -> None:
        """Appends z-depth (H, W) [m]: NaN unknown, +inf beyond any range (REP 117, REP 118)."""
        depth = np.asarray(depth_m, np.float32)
        self.add_raw(topic, IMAGE, stamp_ns, image_cdr(stamp_ns, frame_id, depth))

    def add_camera_info(self, topic: str, stamp_ns: int, camera: Camera, frame_id: str) -> None:
        """Appends the calibration of an image or of the events."""
        self.add_raw(topic, CAMERA_INFO, stamp_ns, camera_info_cdr(stamp_ns, frame_id, camera))

    def add_tf(
        self,
        stamp_ns: int,
        parent: str,
        child: str,
        translation_m: NDArray[Any],
        rotation: NDArray[Any],
        static: bool = False,
    ) -> None:
        """Appends the pose of frame `child` in `parent`: (3,) metres, (4,) quaternion x y z w."""
        topic = '/tf_static' if static else '/tf'
        self.add_raw(topic, TF, stamp_ns, transform_cdr(stamp_ns, parent, child, translation_m,
                                                        rotation))  # fmt: skip

    def add_odometry(
        self,
        topic: str,
        stamp_ns: int,
        parent: str,
        child: str,
        translation_m: NDArray[Any],
        rotation: NDArray[Any],
        twist: tuple[NDArray[Any], NDArray[Any]],
    ) -> None:
        """Appends where frame `child` is in `parent`, and its twist in its own axes."""
        cdr = odometry_cdr(stamp_ns, parent, child, translation_m, rotation, twist)
        self.add_raw(topic, ODOMETRY, stamp_ns, cdr)

    def add_raw(
        self,
        topic: str,
        type_name: str,
        stamp_ns: int,
        cdr: bytes | memoryview,
        definition: str | None = None,
        latched: bool = False,
    ) -> None:
        """Appends a message that is already serialised.

        Args:
            topic: where it was published.
            type_name: its ROS 2 type.
            stamp_ns: when [ns].
            cdr: its bytes.
            definition: ros2msg text of its type, as it was recorded; None for a standard one.
            latched: whether a subscriber that comes late gets the last message.
        """
        if topic not in self._connections:
            self._connections[topic] = self._connect(topic, type_name, definition, latched)
        connection = self._connections[topic]
        if connection is None:
            self.undefined[topic] = self.undefined.get(topic, 0) + 1
            return
        self._writer.write(connection, int(stamp_ns), cdr)  # numpy integers have no to_bytes
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def close(self) -> None:
        """Completes the bag and gives it its name."""
        if self._packetiser is not None:
            for packet in self._packetiser.flush():
                self.add_raw(self._events_topic, EVENT_PACKET, packet.stamp_ns, packet.cdr)
        self._writer.set_custom_data('written_by', 'spike_depth_ros')
        if not self.counts:  # an empty bag starts at 0, not at the end of time
            self._writer.min_timestamp = 0
        self._writer.close()
        self._folder.rename(self.path)
        self._partial.discard()

    def abort(self) -> None:
        """Removes what was written."""
        self._writer.abort()
        self._partial.discard()

    def _connect(
        self, topic: str, type_name: str, definition: str | None, latched: bool
    ) -> Connection | None:
        from rosbags.typesys import TypesysError

        store = self._store_of(type_name, definition)
        if type_name not in store.fielddefs:
            return None
        static = (
            topic == '/tf_static'
        )  # whose messages add up, so all of them must reach latecomers
        profiles = [_latched(STATIC_DEPTH if static else 1)] if latched or static else []
        try:
            return self._writer.add_connection(
                topic, type_name, typestore=store, offered_qos_profiles=profiles
            )
        except TypesysError:  # a type within the type is not defined
            return None

    def _store_of(self, type_name: str, definition: str | None) -> Typestore:
        """A store with the recorded definition of a type, which may differ by distribution."""
        from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

        try:
            types = get_types_from_msg(definition or '', type_name)
        except TypesysError:
            types = {}
        if not types.get(type_name, ((), ()))[1]:
            return self._store
        known = self._store.fielddefs
        if all(known[k][1] == fields for k, (_, fields) in types.items() if k in known):
            self._store.register({k: v for k, v in types.items() if k not in known})
            return self._store
        recorded = get_typestore(Stores.EMPTY)
        recorded.register({k: v for k, v in types.items() if k not in recorded.fielddefs})
        return recorded


def _latched(depth: int) -> Qos:
    """The QoS of /tf_static, of a map or of a robot description."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
