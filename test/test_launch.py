"""Launch file, RViz configuration and package.xml.

The launch file is read as text, for launch is on no registry; where it is installed, it is loaded.
"""

import ast
import dataclasses
import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from rclpy.node import Node

from spike_depth_ros.ros import params
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.outputs import OUTPUTS
from spike_depth_ros.ros.replay_parameters import ReplayParameters

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / 'launch' / 'depth.launch.py'
TREE = ast.parse(LAUNCH.read_text())
TOPICS = {output.topic.replace('~', '/depth_node') for output in OUTPUTS.values()}


def constant(name):
    """The value of a module-level assignment; what is computed is left as source."""
    for node in TREE.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return node.value
    raise AssertionError(f'{LAUNCH.name} assigns no {name}')


def arguments():
    table = constant('ARGUMENTS')
    return {
        key.value: tuple(
            ast.literal_eval(v) if isinstance(v, ast.Constant) else ast.unparse(v)
            for v in value.elts
        )
        for key, value in zip(table.keys, table.values, strict=True)
    }


def test_launch_arguments():
    names = {'events', 'camera_info', 'camera_info_url', 'params_file', 'checkpoint', 'device',
             'bag', 'topic', 'rate', 'loop', 'frame_id', 'rviz', 'namespace', 'use_sim_time',
             'log_level', 'network', 'name', 'autostart', 'engine', 'respawn', 'camera',
             'serial', 'sensor', 'time_unit'}  # fmt: skip
    table = arguments()
    assert set(table) == names
    assert all(len(text) > 5 for _, text in table.values())
    assert table['rviz'][0] == 'false'
    assert {table[name][0] for name in ('use_sim_time', 'loop', 'rate', 'topic', 'autostart',
                                        'engine')} == {''}  # fmt: skip
    assert "'config' / 'depth.yaml'" in table['params_file'][0]


def test_launch_hands_on_parameters_that_the_nodes_have():
    of_depth = {field.name for field in dataclasses.fields(DepthParameters)}
    of_replay = {field.name for field in dataclasses.fields(ReplayParameters)}
    assert set(ast.literal_eval(constant('HANDED_ON'))) <= of_depth & set(arguments())
    depth, replay = started(bag='b', topic='t', rate='2', loop='true', use_sim_time='true',
                            autostart='false', engine='torch')  # fmt: skip
    assert set(depth) - {'use_sim_time'} <= of_depth
    assert (depth['autostart'], depth['engine']) == (False, 'torch')
    assert set(replay) <= of_replay
    assert {'path', 'topic', 'rate', 'loop', 'clock', 'stamp'} <= set(replay)


def test_launch_leaves_to_the_params_file_what_is_not_given():
    assert started() == [{}]
    assert started(bag='b') == [{}, {'path': 'b', 'wait_for_subscriber_s': 60.0}]
    assert started(rate='0.5', use_sim_time='false', bag='b', checkpoint='c') == [
        {'checkpoint': 'c', 'use_sim_time': False},
        {'path': 'b', 'wait_for_subscriber_s': 60.0, 'rate': 0.5, 'clock': False, 'stamp': 'now'},
    ]


def started(**given):
    """Parameters that the launch file gives to each node of this package."""

    class LaunchConfiguration:
        def __init__(self, name):
            self.name = name

        def perform(self, context):
            return given.get(self.name, arguments()[self.name][0])

    return function(
        'start_nodes',
        LaunchConfiguration=LaunchConfiguration,
        ARGUMENTS=arguments(),
        HANDED_ON=ast.literal_eval(constant('HANDED_ON')),
        is_true=function('is_true'),
        beside=function('beside'),
        check=lambda values: None,
        ros_node=lambda values, executable, name, parameters, respawn=False: parameters,
    )(None)


def good_values(**changed):
    return {**{name: default for name, (default, _) in arguments().items()},
            'params_file': str(ROOT / 'config' / 'depth.yaml'), **changed}  # fmt: skip


@pytest.mark.parametrize(('argument', 'value', 'words'), [
    ('params_file', '/nope', "params_file is '/nope', but there is no such file"),
    ('rate', 'fast', "rate is 'fast', expected a number from 0.001 to 1000"),
    ('rate', '-1', "rate is '-1', expected a number from 0.001 to 1000"),
    ('rate', 'nan', "rate is 'nan', expected a number from 0.001 to 1000"),
    ('loop', 'often', "loop is 'often', expected true or false"),
    ('use_sim_time', '2', "use_sim_time is '2', expected true or false"),
    ('log_level', 'loud', "log_level is 'loud', expected one of debug, info"),
    ('camera', 'usb', "camera is 'usb', expected one of none, metavision, davis, dvxplorer"),
    ('camera', 'davis', "camera is 'davis', but the package libcaer_driver is not installed"),
    ('engine', 'steam', "engine is 'steam', expected one of auto, torch"),
    ('network', 'large', "network is 'large', expected one of auto, default, fast"),
    ('device', 'gpu', "device is 'gpu', expected one of auto, cpu, cuda"),
    ('autostart', 'no way', "autostart is 'no way', expected true or false"),
    ('respawn', '3', "respawn is '3', expected true or false"),
    ('name', 'front/eye', "name is 'front/eye', expected letters, digits and underscores"),
    ('bag', '/nope', "bag is '/nope', but there is no such file or folder"),
    ('rviz', 'true', 'rviz is true, but the package rviz2 is not installed'),
])  # fmt: skip
def test_an_argument_that_cannot_be_is_named_before_any_node_starts(argument, value, words):
    check = function(
        'check',
        Path=Path,
        re=re,
        DRIVERS=DRIVERS,
        CHOICES=choices(),
        is_true=function('is_true'),
        is_installed=lambda package: False,
    )
    check(good_values())
    with pytest.raises(ValueError, match=re.escape(words)):
        check(good_values(**{argument: value}))


def choices():
    return eval(ast.unparse(constant('CHOICES')), {'DRIVERS': DRIVERS})


DRIVERS = ast.literal_eval(constant('DRIVERS'))


@pytest.mark.parametrize('argument', ['network', 'device', 'engine'])
def test_an_argument_may_be_what_the_parameter_may_be(argument):
    allowed = params.specs(DepthParameters)[argument].choices
    assert choices()[argument] == ('', *allowed)


def test_of_the_params_file_a_renamed_node_takes_what_is_for_its_executable(tmp_path):
    taken = function('params', yaml=yaml, Path=Path)
    file = tmp_path / 'params.yaml'
    file.write_text("""
        /**: {ros__parameters: {use_sim_time: true}}
        /**/depth_node: {ros__parameters: {stride_ms: 25.0, network: fast}}
        front: {ros__parameters: {network: default}}
        replay_node: {ros__parameters: {rate: 2.0}}
    """)
    assert taken(str(file), 'depth_node', 'depth_node') == str(file)
    assert taken(str(file), 'depth_node', 'front') == {
        'use_sim_time': True, 'stride_ms': 25.0, 'network': 'default',
    }  # fmt: skip


def test_the_namespace_moves_the_default_input():
    default = arguments()['events'][0]
    assert not default.startswith('/')
    assert function('beside')(default) == 'event_camera/camera_info'


def function(name, **names):
    """A function of the launch file, by itself but for the `names` that it knows."""
    (node,) = (n for n in TREE.body if isinstance(n, ast.FunctionDef) and n.name == name)
    exec(compile(ast.Module([node], []), str(LAUNCH), 'exec'), names)
    return names[name]


@pytest.mark.parametrize('namespace', ['', '/robot', 'robot/front/'])
def test_log_level_is_for_the_logger_that_the_node_has(namespace, graph):
    node = graph.add(Node('depth_node', namespace=namespace.rstrip('/')))
    assert function('logger')(namespace, 'depth_node') == node.get_logger().name


def test_the_calibration_is_looked_for_beside_the_events():
    topics = ('/event_camera/events', '/left/events', 'left/events', '/events', 'events')
    assert [function('beside')(topic) for topic in topics] == [
        '/event_camera/camera_info', '/left/camera_info', 'left/camera_info', '/camera_info',
        'camera_info',
    ]  # fmt: skip


def test_words_that_mean_true():
    assert [function('is_true')(text) for text in ('true', 'True', '1', 'false', '', 'no')] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_launch_starts_executables_that_setup_installs():
    scripts = (ROOT / 'setup.py').read_text()
    for executable in ('depth_node', 'replay_node', 'depth_rviz'):
        assert f"'{executable} = spike_depth_ros.ros.executables:{executable}'" in scripts
        assert f"'{executable}'" in LAUNCH.read_text()


@pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None, reason='launch_ros is not installed'
)
@pytest.mark.parametrize('name', ['depth', 'nav2'])
def test_launch_description_is_made(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'launch' / f'{name}.launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = {argument.name for argument in
                module.generate_launch_description().get_launch_arguments()}  # fmt: skip
    assert declared >= set(arguments())


def test_rviz_shows_topics_that_the_node_publishes():
    config = yaml.safe_load((ROOT / 'config' / 'depth.rviz').read_text())['Visualization Manager']
    displays = [d for d in config['Displays'] if 'Topic' in d]
    kinds = {output.topic.replace('~', '/depth_node'): output.type for output in OUTPUTS.values()}
    for display in displays:
        topic = display['Topic']['Value']
        assert display['Class'] == f'rviz_default_plugins/{kinds[topic].__name__}'
    shown = {display['Topic']['Value'] for display in displays}
    assert shown <= TOPICS
    of_launch = ast.literal_eval(constant('RVIZ_TOPICS'))
    assert {f'/depth_node/{topic}' for topic in of_launch} == shown


def imported_ros_packages():
    names = set()
    for path in [*(ROOT / 'spike_depth_ros').rglob('*.py'), *LAUNCH.parent.glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split('.')[0])
    ros = ('rclpy', 'launch', 'launch_ros', 'ament_index_python')
    return {n for n in names if n in ros or n.endswith(('_msgs', '_srvs', '_interfaces'))}


def test_package_xml_names_what_is_imported():
    package = ET.parse(ROOT / 'package.xml').getroot()
    keys = {e.text for kind in ('depend', 'exec_depend') for e in package.iter(kind)}
    unreleased = {'dvs_msgs'}  # a key of no distribution; a bench looks whether it is there
    assert imported_ros_packages() - unreleased <= keys
    # known to nobody's imports: message types made by name, programs, plugins
    assert {'bond', 'tf2_msgs', 'event_camera_msgs', 'lifecycle_msgs', 'rviz2',
            'rviz_default_plugins', 'ros2launch'} <= keys  # fmt: skip
    assert package.get('format') == '3'
    assert package.findtext('export/build_type') == 'ament_python'


def test_package_xml_names_what_tests_need():
    package = ET.parse(ROOT / 'package.xml').getroot()
    needed = {e.text for kind in ('depend', 'test_depend') for e in package.iter(kind)}
    assert {'python3-pytest', 'python3-pytest-timeout', 'python3-hypothesis'} <= needed


def test_package_xml_agrees_with_setup_py():
    package = ET.parse(ROOT / 'package.xml').getroot()
    call = next(
        node
        for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup'
    )
    setup = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    import spike_depth_ros

    assert package.findtext('version') == spike_depth_ros.__version__
    assert package.findtext('description') == setup['description']
    assert package.findtext('license') == setup['license']
    for role in ('author', 'maintainer'):
        assert package.findtext(role) == setup[role]
        assert package.find(role).get('email') == setup[f'{role}_email']


def test_the_scan_reads_topics_that_the_node_publishes():
    tree = ast.parse((ROOT / 'launch' / 'nav2.launch.py').read_text())
    assigned = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign)}
    remappings = ast.literal_eval(assigned['SCAN_REMAPPINGS'])
    assert set(remappings) == {'depth', 'depth_camera_info'}
    assert {f'/{topic}' for topic in remappings.values()} <= TOPICS


def test_nav2_parameters_are_parameters_of_the_node():
    given = yaml.safe_load((ROOT / 'config' / 'nav2' / 'depth_node.yaml').read_text())
    names = {field.name for field in dataclasses.fields(DepthParameters)}
    assert set(given['/**/depth_node']['ros__parameters']) <= names
