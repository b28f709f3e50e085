"""Starts the depth node, and on request a camera driver, a player for a recording and RViz.

ros2 launch spike_depth_ros depth.launch.py events:=/event_camera/events
ros2 launch spike_depth_ros depth.launch.py camera:=metavision rviz:=true
ros2 launch spike_depth_ros depth.launch.py bag:=/data/drive rviz:=true

Other launch files may include it, several times if they give each a namespace or a name: see
two_cameras.launch.py.
"""

import re
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

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
    'camera': ('none', 'driver to start: metavision, davis, dvxplorer, or none'),
    'serial': ('', 'serial number of the camera for that driver; empty: the only one'),
    'params_file': (str(SHARE / 'config' / 'depth.yaml'), 'parameters of the nodes'),
    'network': ('', 'auto, default or fast; empty: as the params file says'),
    'checkpoint': ('', 'weights of your own; empty: those of network'),
    'device': ('', 'auto, cpu or cuda; empty: as the params file says'),
    'engine': ('', 'what runs the network, such as torch_bf16; empty: as the params file says'),
    'autostart': ('', 'false: wait for a lifecycle manager; empty: as the params file says'),
    'respawn': ('false', 'true: start depth node and driver again when they end'),
    'bag': ('', 'recording to play: a bag, a DSEC folder, any event file'),
    'topic': ('', 'topic of the events in the recording; empty: the only one'),
    'sensor': ('', 'size WIDTHxHEIGHT of the sensor, where the recording does not state it'),
    'time_unit': ('', 's, ms, us or ns, where the times of an HDF5 file do not show it'),
    'rate': ('', 'speed of the recording; empty: as the params file says, or 1'),
    'loop': ('', 'true: play the recording again and again; empty: as the params file says'),
    'rviz': ('false', 'open RViz with the displays for this node'),
    'frame_id': ('', 'optical frame of all outputs; empty: the frame_id of the events'),
    'namespace': ('', 'namespace of all nodes'),
    'name': ('depth_node', 'name of the depth node, also in its topics and in the params file'),
    'use_sim_time': ('', 'true: take the time from /clock, which the player then publishes'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}
"""Argument -> default and explanation."""

HANDED_ON = ('network', 'checkpoint', 'device', 'engine', 'camera_info_url', 'frame_id')
"""Arguments that become parameters of the depth node of the same name."""

DRIVERS = {
    'metavision': ('metavision_driver', {}),
    'davis': ('libcaer_driver', {'device_type': 'davis'}),
    'dvxplorer': ('libcaer_driver', {'device_type': 'dvxplorer'}),
}
"""Argument `camera` -> package of the driver and its parameters."""

CAMERA_FRAME = 'event_camera_optical_frame'
"""Frame of the events of a driver that is started here, unless `frame_id` names one."""

CHOICES = {
    'camera': ('none', *DRIVERS),
    'network': ('', 'auto', 'default', 'fast'),
    'device': ('', 'auto', 'cpu', 'cuda'),
    'engine': ('', 'auto', 'torch', 'torch_bf16', 'torch_int8', 'cuda'),
    'log_level': ('debug', 'info', 'warn', 'error', 'fatal'),
}
"""Argument -> what it may be."""

RVIZ_TOPICS = (
    'events/image',
    'depth/image_color',
    'depth/confidence',
    'depth/image',
    'depth/points',
)
"""Topics in config/depth.rviz, below /depth_node."""

RESPAWN_DELAY_S = 2.0


def generate_launch_description():
    """The arguments of `depth.launch.py`, and the nodes once their values are known."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_nodes)])


def start_nodes(context):
    """The depth node, and the driver, the player and RViz that are asked for.

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
    if values['autostart']:
        depth['autostart'] = is_true(values['autostart'])
    if values['use_sim_time']:
        simulated = is_true(values['use_sim_time'])
        depth['use_sim_time'] = replay['clock'] = simulated
        replay['stamp'] = 'recorded' if simulated else 'now'
    nodes = [ros_node(values, 'depth_node', values['name'], depth, is_true(values['respawn']))]
    if values['camera'] != 'none':
        nodes.append(driver_node(values))
    if values['bag']:
        nodes.append(ros_node(values, 'replay_node', 'replay_node', replay))
    if is_true(values['rviz']):
        nodes.append(rviz_node(values, is_true(values['use_sim_time'])))
    return nodes


def check(values):
    """Raises a ValueError that names the argument unless all values can be used."""
    if not Path(values['params_file']).is_file():
        raise ValueError(f'params_file is {values["params_file"]!r}, but there is no such file')
    for name, allowed in CHOICES.items():
        if values[name].lower() not in allowed:
            expected = ', '.join(word for word in allowed if word)
            raise ValueError(f'{name} is {values[name]!r}, expected one of {expected}')
    if not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', values['name']):
        raise ValueError(f'name is {values["name"]!r}, expected letters, digits and underscores')
    for name in ('rviz', 'loop', 'use_sim_time', 'autostart', 'respawn'):
        if values[name].lower() not in ('', 'true', 'false', '1', '0', 'yes', 'no'):
            raise ValueError(f'{name} is {values[name]!r}, expected true or false')
    try:
        rate = float(values['rate'] or 1)
    except ValueError:
        rate = 0.0
    if not 0.001 <= rate <= 1000:
        raise ValueError(f'rate is {values["rate"]!r}, expected a number from 0.001 to 1000')
    if values['bag'] and not Path(values['bag']).expanduser().exists():
        raise ValueError(f'bag is {values["bag"]!r}, but there is no such file or folder')
    if values['camera'] != 'none':
        package, _ = DRIVERS[values['camera']]
        if values['bag']:
            raise ValueError(f'camera is {values["camera"]!r} and bag is {values["bag"]!r}: '
                             'expected only one of them')  # fmt: skip
        if not is_installed(package):
            raise ValueError(f'camera is {values["camera"]!r}, but the package {package} is not '
                             'installed: install it (apt install ros-$ROS_DISTRO-'
                             f'{package.replace("_", "-")}), or leave camera out')  # fmt: skip
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


def driver_node(values):
    """The driver of the camera, which publishes on the topic `events`."""
    package, parameters = DRIVERS[values['camera']]
    name = values['events'].strip('/').rpartition('/')[0].rpartition('/')[2] or 'event_camera'
    return Node(
        package=package,
        executable='driver_node',
        name=name,
        namespace=values['namespace'],
        output='screen',
        parameters=[
            {
                **parameters,
                'serial': ParameterValue(values['serial'], value_type=str),
                'frame_id': values['frame_id'] or CAMERA_FRAME,
            }
        ],
        remappings=[('~/events', values['events'])],
        respawn=is_true(values['respawn']),
        respawn_delay=RESPAWN_DELAY_S,
    )


def rviz_node(values, use_sim_time):
    """RViz with the displays of config/depth.rviz, moved to the topics of the depth node.

    Its fixed frame is `frame_id`, or that of the first events.
    """
    above = '/'.join(part for part in (values['namespace'].strip('/'), values['name']) if part)
    frame = values['frame_id'] or (CAMERA_FRAME if values['camera'] != 'none' else '')
    return Node(
        package='rviz2' if frame else PACKAGE,
        executable='rviz2' if frame else 'depth_rviz',
        namespace=values['namespace'],
        arguments=['-d', str(SHARE / 'config' / 'depth.rviz'), *(['-f', frame] if frame else [])],
        parameters=[{'use_sim_time': use_sim_time}],
        remappings=[
            *((f'/depth_node/{topic}', f'/{above}/{topic}') for topic in RVIZ_TOPICS),
            ('events', values['events']),
        ],
    )


def ros_node(values, executable, name, parameters, respawn=False):
    """A node of this package with the params file, and `parameters` over it."""
    return Node(
        package=PACKAGE,
        executable=executable,
        name=name,
        namespace=values['namespace'],
        output='screen',
        emulate_tty=True,
        parameters=[params(values['params_file'], executable, name), parameters],
        remappings=[('events', values['events']), ('camera_info', values['camera_info'])],
        arguments=[
            '--ros-args',
            '--log-level',
            f'{logger(values["namespace"], name)}:={values["log_level"]}',
        ],
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
    )


def params(file, executable, name):
    """The params file; for a node with another name, what the file has for the executable."""
    if name == executable:
        return file
    sections = yaml.safe_load(Path(file).read_text(encoding='utf-8')) or {}
    found = {}
    for section, content in sections.items():
        if section.rpartition('/')[2] in ('**', executable, name):
            found |= content['ros__parameters']
    return found


def logger(namespace, node):
    """Name of a node's logger: /robot/front and depth_node give robot.front.depth_node."""
    return '.'.join(part for part in [*namespace.split('/'), node] if part)
