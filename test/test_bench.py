"""Benchmarks: their form, and that what they time is right; never how fast."""

import json

import numpy as np
import pytest

from spike_depth_ros.cli import bench_ingest, main, report
from spike_depth_ros.events.codecs import CODECS


def test_ratio_says_how_many_times_better():
    assert report.bench_row('a', 6.0, 'Mev/s', 'b', 2.0)['ratio'] == 3.0
    assert report.bench_row('a', 2.0, 'ms', 'b', 6.0, less_is_better=True)['ratio'] == 3.0
    assert report.bench_row('a', 2.0, 'ms')['ratio'] is None
    assert report.bench_row('a', None, 'ms', 'b', 6.0)['ratio'] is None


def test_the_median_and_the_spread_of_the_rounds():
    row = report.bench_row('a', [1.0, 2.0, 3.0, 4.0, 9.0], 'ms', 'b', [6.0, 60.0, 5.0],
                           less_is_better=True)  # fmt: skip
    assert (row['value'], row['peer_value'], row['ratio']) == (3.0, 6.0, 2.0)
    assert (row['low'], row['high']) == pytest.approx((1.4, 7.0))  # 0.4 and 3.6 steps from 1


def test_table_is_markdown_with_one_line_per_row():
    rows = [report.bench_row('first', [6.0, 5.0, 7.0], 'Mev/s', 'b', 2.0),
            report.bench_row('x', None, 'ms')]  # fmt: skip
    head, rule, one, two = report.bench_table(rows).splitlines()
    assert len({len(line) for line in (head, rule, one, two)}) == 1
    assert [cell.strip() for cell in one.split('|')] == [
        '', 'first', '6', '5.2 to 6.8', 'Mev/s', 'b', '2', '3.00x', '',
    ]  # fmt: skip
    assert [cell.strip() for cell in two.split('|')] == ['', 'x', '-', '', 'ms', '', '', '', '']


def test_jobs_take_turns_and_every_run_counts(monkeypatch):
    clock = iter([0, 9, 10, 11, 20, 25, 30, 37])  # a: 9 and 5, b: 1 and 7
    monkeypatch.setattr(report.time, 'perf_counter', lambda: next(clock))
    calls = []
    times_s = report.time_jobs([lambda: calls.append('a'), lambda: calls.append('b')], 2)
    assert [job_s.tolist() for job_s in times_s] == [[9, 5], [1, 7]]
    assert calls == ['a', 'b'] * 3


def test_early_steps_are_compared_in_one_run():
    pytest.importorskip('rclpy')
    from spike_depth_ros.cli.bench_node import early_rows
    from spike_depth_ros.ros.node_processes import Turns

    turns = {'on': Turns([10.0, 20.0, 30.0], [0.5, 0.6]), 'off': Turns([20.0, 40.0, 60.0], [0.44])}
    latency, p99, cores = early_rows(turns)
    assert (latency['value'], latency['peer'], latency['peer_value']) == (20.0, 'off', 40.0)
    assert latency['ratio'] == p99['ratio'] == 2.0
    assert (p99['value'], cores['value']) == pytest.approx((29.8, 0.55))
    assert cores['ratio'] == pytest.approx(0.8)
    assert list(early_rows({'on': turns['on']})) == []


def test_machine_is_json():
    here = report.machine()
    assert json.loads(json.dumps(here)) == here
    assert here['cores'] >= 1
    assert here['packages']['numpy'] == np.__version__


def test_clips_has_a_row_for_each_scene(capsys):
    main(['bench', 'clips', '--json', 'true', '--rounds', '1', '--seconds', '0.05',
          '--scenes', '[board, desk]', '--sensor', '64x48'])  # fmt: skip
    rows = json.loads(capsys.readouterr().out)['rows']
    assert [row['name'] for row in rows] == ['board', 'desk']
    assert all(row['value'] > 0 for row in rows)
    with pytest.raises(SystemExit):
        main(['bench', 'clips', '--mix', 'config/depth.yaml'])
    assert 'config/depth.yaml has no folder for clips' in capsys.readouterr().err


def test_ingest_prints_one_json_object(capsys):
    main(['bench', 'ingest', '--json', 'true', '--rounds', '1'])
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {'machine', 'rows'}
    names = [row['name'] for row in printed['rows']]
    assert len(names) == 7
    assert sum('(made)' in name for name in names) == 5
    for row in printed['rows']:
        assert set(row) == {'name', 'value', 'low', 'high', 'unit', 'peer', 'peer_value',
                            'ratio'}  # fmt: skip
        assert row['value'] > 0


def test_ingest_wants_a_folder_of_recordings(tmp_path):
    with pytest.raises(NotADirectoryError, match=r'recordings is .*none'):
        bench_ingest.ingest(recordings=tmp_path / 'none')


def test_ingest_reads_the_recordings(real_events):
    packets = bench_ingest._recorded(real_events, 'test_events_1')
    assert len(packets) == 517
    assert bench_ingest._origin(packets) == 'recorded'
    assert bench_ingest._recorded(real_events, 'no_such_bag') is None


@pytest.mark.parametrize('encoding', ['evt3', 'libcaer_cmp'])
def test_made_streams_hold_what_they_should(encoding):
    packets = bench_ingest._made(encoding)
    decoder = CODECS[encoding](480, 640)
    for packet in packets:
        decoder.decode(packet.payload, packet.time_base_ns)
    assert decoder.counts.events == 300_000
    assert decoder.counts.backward_steps == 0


def test_peers_decode_the_same():
    pytest.importorskip('dvs_msgs.msg')
    pytest.importorskip('rclpy')
    from spike_depth_ros.events.codecs import encode_event_array
    from spike_depth_ros.events.wire import Packet, pack_event_array
    from spike_depth_ros.ros.peers import deserialise_event_array

    events = bench_ingest._dense_events()[:50]
    payload = np.frombuffer(encode_event_array(events), np.uint8)
    cdr = pack_event_array(Packet(0, 'a', 720, 1280, None, 0, 'event_array', payload))
    assert deserialise_event_array(cdr).tolist() == events.tolist()
