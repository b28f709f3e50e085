"""`spike_depth warm-up`: does the one-time work of the first start of depth_node."""

from __future__ import annotations


def warm_up(threads: int = 0) -> None:
    """Compiles the kernels of depth_node and chooses its network, once per machine.

    `make setup` runs this. Run it again after building a workspace, on an otherwise idle machine:
    `ros2 run spike_depth_ros spike_depth warm-up`. The kernels are cached beside the installed
    code (or in `NUMBA_CACHE_DIR`) and serve all users of the machine; where that folder cannot be
    written to, they are cached in `~/.cache/spike_depth_ros`, as is the choice of the network.

    Args:
        threads: value of the node's parameter num_threads, on which the choice depends.
    """
    from spike_depth_ros.estimation.estimator import SHIPPED
    from spike_depth_ros.ros.depth_parameters import DepthParameters
    from spike_depth_ros.ros.energy_meter import EnergyMeter
    from spike_depth_ros.ros.loaded_network import load_network

    for network in (*SHIPPED, 'auto'):  # The choice comes last, when everything is compiled.
        loaded = load_network(DepthParameters(network=network, num_threads=threads), None)
        EnergyMeter(loaded.checkpoint.model, loaded.checkpoint.spikes)
    print(f'depth_node will run {loaded.path} on {loaded.engine.device}')
