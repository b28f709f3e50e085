"""The parameter tables: against the files in config/, and as a real node lives by them."""

import dataclasses
from pathlib import Path

import pytest
import rclpy
import yaml
from graph import overrides
from rclpy.node import Node
from rclpy.parameter import Parameter

from spike_depth_ros.ros import parameter_pages, params
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.outputs import OUTPUTS
from spike_depth_ros.ros.params import ParameterError

CONFIG = Path(__file__).resolve().parents[1] / 'config' / 'depth.yaml'
DOCUMENT = CONFIG.parents[1] / 'docs' / 'nodes.md'
NODES = parameter_pages.NODES


def declared(graph, table, **values):
    node = graph.add(Node('one', parameter_overrides=overrides(values)))
    params.declare(node, table)
    return node


def test_files_are_up_to_date_with_the_tables():
    assert CONFIG.read_text() == parameter_pages.yaml_file(), 'run `make parameters`'
    text = DOCUMENT.read_text()
    assert text == parameter_pages.page(text), 'run `make parameters`'


@pytest.mark.parametrize('name', NODES)
def test_config_file_holds_every_parameter_with_its_default(name):
    values = yaml.safe_load(CONFIG.read_text())[f'/**/{name}']['ros__parameters']
    expected = dataclasses.asdict(NODES[name]())
    for parameter in parameter_pages.NOT_IN_FILES:
        expected.pop(parameter, None)
    assert values == expected
    assert [type(v) for v in values.values()] == [type(v) for v in expected.values()]


def test_a_page_without_a_place_for_the_table_is_refused():
    with pytest.raises(ValueError, match='parameters of depth_node'):
        parameter_pages.page('# Nodes')


def test_document_names_every_topic_and_service():
    text = DOCUMENT.read_text()
    for output in OUTPUTS.values():
        assert f'| `{output.topic}` | `sensor_msgs/{output.type.__name__}` |' in text
    for service in ('~/reset', '~/set_enabled', '~/snapshot'):
        assert f'| `{service}` |' in text


@pytest.mark.parametrize('table', NODES.values())
def test_every_default_is_possible(table):
    for name in params.specs(table):
        assert params.reason_against(table, name, getattr(table, name)) == ''


def test_params_file_reaches_the_node():
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(CONFIG)], context=context)
    node = Node('depth_node', context=context, namespace='/robot')
    try:
        params.declare(node, DepthParameters)
        assert params.read(node, DepthParameters) == DepthParameters()
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def test_descriptors(graph):
    node = declared(graph, DepthParameters)
    stride = node.describe_parameter('stride_ms')
    assert 'depth map' in stride.description
    limits = stride.floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 10_000.0)
    cloud = node.describe_parameter('cloud_stride').integer_range[0]
    assert (cloud.from_value, cloud.to_value) == (1, 64)
    encoding = node.describe_parameter('depth_encoding').additional_constraints
    assert encoding == 'one of 32FC1, 16UC1'


def test_whole_numbers_do_for_floats(graph):
    node = declared(graph, DepthParameters, stride_ms=25)
    assert params.read(node, DepthParameters).stride_ms == 25.0
    changes = params.whole_numbers_as_floats(DepthParameters, overrides({'window_ms': 50}))
    assert type(changes[0].value) is float


@pytest.mark.parametrize(('values', 'reason'), [
    ({'stride_ms': -3.0}, 'stride_ms is -3, expected 0 to 10000'),
    ({'stride_ms': 'often'}, "stride_ms is 'often', expected a number"),
    ({'num_threads': 1.5}, 'num_threads is 1.5, expected a whole number'),
    ({'device': 'gpu'}, "device is 'gpu', expected one of auto, cpu, cuda"),
    ({'cloud_stride': 0}, 'cloud_stride is 0, expected 1 to 64'),
])  # fmt: skip
def test_impossible_values_at_the_start_are_refused(graph, values, reason):
    with pytest.raises(ParameterError) as refused:
        declared(graph, DepthParameters, **values)
    assert str(refused.value) == reason


def judged(settled='is fixed for now', **values):
    return params.judge(DepthParameters(), overrides(values), settled, DepthParameters.check)


def test_changes_are_judged():
    assert judged(min_confidence=0.5).successful
    assert judged(not_ours=1).successful
    assert judged(settled='', checkpoint='x').successful
    fixed = judged(checkpoint='x')
    assert not fixed.successful
    assert fixed.reason == 'checkpoint is fixed for now'
    assert judged(min_confidence=1.5).reason == 'min_confidence is 1.5, expected 0 to 1'


def test_changes_that_contradict_each_other_are_refused():
    assert 'min_depth_m' in judged(min_depth_m=50.0, max_depth_m=40.0).reason
    assert 'color_max_m' in judged(color_min_m=60.0).reason


def test_every_float_is_a_float():
    for table in NODES.values():
        for field in dataclasses.fields(table):
            spec = field.metadata['spec']
            assert type(field.default).__name__ == str(field.type)
            assert spec.text.endswith('.')


def test_unset_parameter_is_no_value():
    assert 'expected a text' in params.reason_against(
        DepthParameters, 'checkpoint', Parameter('checkpoint').value
    )


def test_a_misspelt_parameter_is_named_and_those_of_other_nodes_are_not(tmp_path, capfd):
    shared = tmp_path / 'shared.yaml'  # as many robots have it: one file for all nodes
    shared.write_text(
        '/**:\n  ros__parameters:\n    use_sim_time: false\n    robot_radius: 0.3\n'
        '    min_confidance: 0.9\n    map_frame: world\n    stride_ms: 25.0\n'
    )
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '--params-file', str(shared)], context=context)
    given = overrides({'qos_overrides./events.x': 1})
    node = Node('depth_node', parameter_overrides=given, context=context)
    params.declare(node, DepthParameters)
    params.warn_of_unknown(node, DepthParameters)
    log = capfd.readouterr().err
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    assert log.count('there is no parameter') == 1
    assert 'there is no parameter min_confidance: is it min_confidence?' in log
