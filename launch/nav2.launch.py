"""Starts the depth node with what Nav2 needs of it, and on request a laser scan from its depth.

ros2 launch spike_depth_ros nav2.launch.py events:=/event_camera/events
ros2 launch spike_depth_ros nav2.launch.py scan:=true

All arguments of depth.launch.py are taken too.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = Path(__file__).resolve().parents[1]
NAV2 = SHARE / 'config' / 'nav2'

SCAN_REMAPPINGS = {
    'depth': 'depth_node/depth/image',
    'depth_camera_info': 'depth_node/depth/camera_info',
}
"""Topic of depthimage_to_laserscan -> topic of the depth node."""


def generate_launch_description():
    """The depth node by its own launch file, and depthimage_to_laserscan if `scan` is true."""
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'depth.launch.py')),
        launch_arguments={'params_file': LaunchConfiguration('params_file')}.items(),
    )
    scan = Node(
        package='depthimage_to_laserscan',
        executable='depthimage_to_laserscan_node',
        name='depthimage_to_laserscan',
        namespace=LaunchConfiguration('namespace'),
        parameters=[str(NAV2 / 'laserscan.yaml')],
        remappings=list(SCAN_REMAPPINGS.items()),
        condition=IfCondition(LaunchConfiguration('scan')),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'params_file',
                default_value=str(NAV2 / 'depth_node.yaml'),
                description='parameters of the depth node',
            ),
            DeclareLaunchArgument('namespace', default_value='', description='of all nodes'),
            DeclareLaunchArgument(
                'scan',
                default_value='false',
                description='true: also start depthimage_to_laserscan',
            ),
            depth,
            scan,
        ]
    )
