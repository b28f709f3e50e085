"""Two event cameras on one robot, each with a depth node of its own: an example to copy.

ros2 launch spike_depth_ros two_cameras.launch.py camera:=metavision left_serial:=1 right_serial:=2
ros2 launch spike_depth_ros two_cameras.launch.py   # where the drivers are started elsewhere

Depth comes on /left/depth_node/depth/image and /right/depth_node/depth/image. Give each node half
of the cores by `num_threads` in a params file.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

DEPTH = Path(__file__).with_name('depth.launch.py')
SIDES = ('left', 'right')


def generate_launch_description():
    """depth.launch.py once for each side; arguments for both are those of depth.launch.py."""
    serials = [
        DeclareLaunchArgument(
            f'{side}_serial', default_value='', description=f'serial number of the {side} camera'
        )
        for side in SIDES
    ]
    return LaunchDescription([*serials, *map(one_side, SIDES)])


def one_side(side):
    """The nodes of one camera, in a namespace of their own."""
    return GroupAction(
        [
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(DEPTH)),
                launch_arguments={
                    'namespace': side,
                    'serial': LaunchConfiguration(f'{side}_serial'),
                    'frame_id': f'{side}_camera_optical_frame',
                }.items(),
            )
        ]
    )
