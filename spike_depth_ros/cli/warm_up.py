"""`spike_depth warm-up`: does what the first start of depth_node would have to wait for."""

from __future__ import annotations


def warm_up(threads: int = 0) -> None:
    """Compiles the kernels of depth_node and chooses its network, both once for each machine.

    `make setup` calls it. Call it again after a build in a workspace, on a machine without other
    load: `ros2 run spike_depth_ros spike_depth warm-up`. The kernels are kept beside the installed
    code (or in `NUMBA_CACHE_DIR`), the choice of the network in `~/.cache/spike_depth_ros`.

    Args:
        threads: as the parameter num_threads of the node, on which the choice depends.
    """
    from spike_depth_ros.ros.depth_parameters import NETWORKS, DepthParameters
    from spike_depth_ros.ros.energy_meter import EnergyMeter
    from spike_depth_ros.ros.loaded_network import load_network

    for network in (*NETWORKS, 'auto'):  # the choice comes last, when all is compiled
        loaded = load_network(DepthParameters(network=network, num_threads=threads), None)
        EnergyMeter(loaded.checkpoint.model, loaded.checkpoint.spikes)
    print(f'depth_node will run {loaded.path} on {loaded.engine.device}')
