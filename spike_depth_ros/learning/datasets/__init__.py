"""Data sets: event windows with exact or measured depth, as the same `Sample` from each.

`DATASETS['dsec'](DsecConfig(root='/data/DSEC'))` is a sequence of clips; a clip is a list of
consecutive `Sample`s. Heavy modules are imported only when an entry is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spike_depth_ros.learning.datasets.sample import Sample


class DatasetEntry(NamedTuple):
    """One entry of `DATASETS`: the location of its configuration class and its builder."""

    module: str  # within spike_depth_ros.learning.datasets
    config_name: str
    builder_name: str
    summary: str

    @property
    def config(self) -> type:
        """Returns the frozen dataclass that configures this data set."""
        found: type = getattr(self._module(), self.config_name)
        return found

    def __call__(self, config: object) -> Sequence[list[Sample]]:
        """Opens the data set: one list of samples per clip.

        Args:
            config: an instance of `self.config`.

        Raises:
            DatasetError, BagError: something is missing or damaged; the message names it.
            TypeError: `config` belongs to another data set.
        """
        if not isinstance(config, self.config):
            raise TypeError(f'{self.module} needs a {self.config_name}, got {config!r}')
        clips: Sequence[list[Sample]] = getattr(self._module(), self.builder_name)(config)
        return clips

    def _module(self) -> ModuleType:
        return importlib.import_module(f'{__name__}.{self.module}')


DATASETS: dict[str, DatasetEntry] = {
    'dsec': DatasetEntry('dsec', 'DsecConfig', 'open_dsec', 'DSEC: driving, 640x480, LiDAR depth'),
    'dense': DatasetEntry('dense', 'DenseConfig', 'open_dense', 'DENSE: CARLA, 346x260 events'),
    'dense_spike': DatasetEntry(
        'dense', 'DenseSpikeConfig', 'open_dense_spike', 'DENSE-spike: frames of a spike camera'
    ),
    'mvsec': DatasetEntry('mvsec', 'MvsecConfig', 'open_mvsec', 'MVSEC: DAVIS 346x260'),
    'synthetic': DatasetEntry(
        'synthetic',
        'SyntheticConfig',
        'open_synthetic',
        'clips from the simulator, stored on disk',
    ),
}
"""Name -> data set: the only registry of data sets."""
