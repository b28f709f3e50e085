"""Starts the depth node, and on request a player for a recording and RViz.

ros2 launch spike_depth_ros depth.launch.py events:=/event_camera/events
ros2 launch spike_depth_ros depth.launch.py bag:=/data/drive rviz:=true
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

PACKAGE = 'spike_depth_ros'
SHARE = Path(__file__).resolve().parents[1]

ARGUMENTS = {
    'events': (
        'event_camera/events',
        'topic of the events: EventPacket or an EventArray; it moves with namespace',
    ),
    'camera_info': ('', 'topic of the calibration, if there is one; empty: beside the events'),
    'camera_info_url': ('', 'calibration file (YAML) in place of that topic'),
    'params_file': (str(SHARE / 'config' / 'depth.yaml'), 'parameters of the nodes'),
    'network': ('', 'auto, default or fast; empty: as the params file says'),
    'checkpoint': ('', 'weights of your own; empty: those of network'),
    'device': ('', 'auto, cpu or cuda; empty: as the params file says'),
    'bag': ('', 'recording to play: a bag, a DSEC folder, any event file'),
    'topic': ('', 'topic of the events in the recording; empty: the only one'),
    'sensor': ('', 'size WIDTHxHEIGHT of the sensor, where the recording does not state it'),
    'time_unit': ('', 's, ms, us or ns, where the times of an HDF5 file do not show it'),
    'rate': ('', 'speed of the recording; empty: as the params file says, or 1'),
    'loop': ('', 'true: play the recording again and again; empty: as the params file says'),
    'rviz': ('false', 'open RViz with the displays for this node'),
    'frame_id': ('', 'optical frame of all outputs; empty: the frame_id of the events'),
    'namespace': ('', 'namespace of all nodes'),
    'use_sim_time': ('', 'true: take the time from /clock, which the player then publishes'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}
"""Argument -> default and explanation."""

HANDED_ON = ('network', 'checkpoint', 'device', 'camera_info_url', 'frame_id')
"""Arguments that become parameters of the depth node of the same name."""

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')

RVIZ_TOPICS = (
    'depth_node/events/image',
    'depth_node/depth/image_color',
    'depth_node/depth/confidence',
    'depth_node/depth/image',
    'depth_node/depth/points',
)
"""Topics in config/depth.rviz."""


def generate_launch_description():
    """The arguments of `depth.launch.py`, and the nodes once their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])


def start_nodes(context):
    """The depth node, the player if there is a recording, RViz if it is wanted.

    All arguments are checked before the first node starts: a launch that fails later would leave
    that node behind. Arguments left empty are not handed on, so that they do not hide what the
    params file says. The player waits for the depth node in any case.
    """
    values = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    check(values)
    values['camera_info'] = values['camera_info'] or beside(values['events'])
    depth = {name: values[name] for name in HANDED_ON if values[name]}
    replay = {'path': values['bag'], 'wait_for_subscriber_s': 60.0}
    replay |= {name: values[name] for name in ('topic', 'sensor', 'time_unit') if values[name]}
    if values['rate']:
        replay['rate'] = float(values['rate'])
    if values['loop']:
        replay['loop'] = is_true(values['loop'])
    if values['use_sim_time']:
        simulated = is_true(values['use_sim_time'])
        depth['use_sim_time'] = replay['clock'] = simulated
        replay['stamp'] = 'recorded' if simulated else 'now'
    nodes = [ros_node(values, 'depth_node', depth)]
    if values['bag']:
        nodes.append(ros_node(values, 'replay_node', replay))
    if is_true(values['rviz']):
        nodes.append(rviz_node(values, is_true(values['use_sim_time'])))
    return nodes


def check(values):
    """Raises a ValueError that names the argument unless all values can be used."""
    if not Path(values['params_file']).is_file():
        raise ValueError(f'params_file is {values["params_file"]!r}, but there is no such file')
    for name in ('rviz', 'loop', 'use_sim_time'):
        if values[name].lower() not in ('', 'true', 'false', '1', '0', 'yes', 'no'):
            raise ValueError(f'{name} is {values[name]!r}, expected true or false')
    try:
        rate = float(values['rate'] or 1)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1000:
        raise ValueError(f'rate is {values["rate"]!r}, expected a number from 0.001 to 1000')
    if values['log_level'].lower() not in LOG_LEVELS:
        raise ValueError(f'log_level is {values["log_level"]!r}, expected one of {LOG_LEVELS}')
    if values['bag'] and not Path(values['bag']).expanduser().exists():
        raise ValueError(f'bag is {values["bag"]!r}, but there is no such file or folder')
    if is_true(values['rviz']) and not is_installed('rviz2'):
        raise ValueError('rviz is true, but the package rviz2 is not installed: install it '
                         '(apt install ros-$ROS_DISTRO-rviz2), or leave rviz out')  # fmt: skip


def is_installed(package):
    """Whether there is such a ROS package."""
    try:
        get_package_prefix(package)
    except (PackageNotFoundError, LookupError):
        return False
    return True


def is_true(text):
    """A launch argument as a bool."""
    return text.lower() in ('true', '1', 'yes')


def beside(events):
    """The topic of the calibration that belongs to a topic of events."""
    return events.rpartition('/')[0] + '/camera_info' if '/' in events else 'camera_info'


def rviz_node(values, use_sim_time):
    """RViz with the displays of config/depth.rviz, moved into the namespace."""
    frame = ['-f', values['frame_id']] if values['frame_id'] else []
    namespace = values['namespace'].strip('/')
    moved = [(f'/{topic}', f'/{namespace}/{topic}') for topic in RVIZ_TOPICS] if namespace else []
    return Node(
        package='rviz2',
        executable='rviz2',
        namespace=values['namespace'],
        arguments=['-d', str(SHARE / 'config' / 'depth.rviz'), *frame],
        parameters=[{'use_sim_time': use_sim_time}],
        remappings=moved,
    )


def ros_node(values, executable, parameters):
    """A node of this package with the params file, and `parameters` over it."""
    return Node(
        package=PACKAGE,
        executable=executable,
        name=executable,
        namespace=values['namespace'],
        output='screen',
        emulate_tty=True,
        parameters=[values['params_file'], parameters],
        remappings=[('events', values['events']), ('camera_info', values['camera_info'])],
        arguments=[
            '--ros-args',
            '--log-level',
            f'{logger(values["namespace"], executable)}:={values["log_level"]}',
        ],
    )


def logger(namespace, node):
    """Name of a node's logger: /robot/front and depth_node give robot.front.depth_node."""
    return '.'.join(part for part in [*namespace.split('/'), node] if part)
