"""A plane has planarity 0, noise has its own standard deviation, a real board is a test."""

from pathlib import Path

import numpy as np
import pytest
from untrained import untrained_checkpoint

from spike_depth_ros.learning.board import board_maps
from spike_depth_ros.learning.metrics import SCALARS, frame_metrics
from spike_depth_ros.learning.planarity import fit_plane
from spike_depth_ros.network.checkpoint import load_checkpoint
from spike_depth_ros.recordings import BagError

ROOT = Path(__file__).resolve().parents[1]
BOARD = ROOT.parent / 'shared' / 'real_events' / 'test_events_2'


def plane(a=2e-4, b=-1e-4, c=0.2, height=90, width=120):
    rows, columns = np.mgrid[:height, :width]
    return 1 / (a * columns + b * rows + c)


def planarity(depth_m, truth_m):
    frame = frame_metrics(depth_m, np.ones_like(depth_m), truth_m)
    return dict(zip(SCALARS, frame.scalars, strict=True))['planarity']


def test_a_plane_is_found():
    fit = fit_plane(plane())
    np.testing.assert_allclose(fit.coefficients, [2e-4, -1e-4, 0.2], rtol=1e-6)
    assert fit.spread == pytest.approx(0, abs=1e-9)
    assert fit.rms == pytest.approx(0, abs=1e-9)


def test_a_scale_does_not_matter_and_noise_is_measured():
    noise = np.random.default_rng(0).normal(0, 0.1, (90, 120))
    fits = [fit_plane(scale * plane() * np.exp(noise)) for scale in (1, 7)]
    assert fits[0].spread == pytest.approx(0.1, rel=0.05)
    assert fits[0].rms == pytest.approx(0.1, rel=0.05)
    assert fits[1].spread == pytest.approx(fits[0].spread, rel=1e-6)


def test_outliers_turn_no_plane():
    depth = plane()
    depth[:20, :40] *= 3
    fit = fit_plane(depth)
    assert fit.spread < 0.03
    # 800 of 10,800 pixels are ln 3 off
    assert fit.rms == pytest.approx(np.log(3) * np.sqrt(800 / 10_800), rel=0.1)


def test_a_corner_is_no_plane():
    slope = np.tile(np.abs(np.arange(120) - 60), (90, 1))
    assert fit_plane(1 / (0.1 + 2e-3 * slope)).spread > 0.1


def test_marks_do_not_count_and_nothing_has_no_plane():
    depth = plane()
    depth[30:, :60], depth[:10, 60:] = np.nan, np.inf
    np.testing.assert_allclose(fit_plane(depth).coefficients, [2e-4, -1e-4, 0.2], rtol=1e-6)
    assert fit_plane(np.full((90, 120), np.nan)) is None


def test_it_is_measured_where_the_truth_is_a_plane():
    truth = plane()
    noisy = truth * np.exp(np.random.default_rng(0).normal(0, 0.2, truth.shape))
    assert planarity(noisy, truth) == pytest.approx(0.2, rel=0.05)
    bent = truth.copy()
    bent[:, 60:] *= 1.5
    assert np.isnan(planarity(noisy, bent))
    open_sky = truth.copy()
    open_sky[:20] = np.inf
    assert np.isnan(planarity(noisy, open_sky))


def real_board():
    if not BOARD.is_dir():
        pytest.skip('the recording of a flat board is not at hand')
    return BOARD


def test_a_real_board_gives_a_figure_for_every_window():
    maps = board_maps(untrained_checkpoint('tiny'), real_board())
    assert len(maps) == 19  # one second in windows of 50 ms, the first and last cut short
    assert all(0 <= one.confidence <= 1 and 0 <= one.beyond <= 1 for one in maps)


def test_the_default_sees_a_board_and_is_unsure():
    """Measured, never tuned on."""
    maps = board_maps(load_checkpoint(ROOT / 'models' / 'default.safetensors'), real_board())
    assert np.median([one.rms for one in maps]) < 0.35  # 0.44 before networks saw boards
    assert np.median([one.beyond for one in maps]) < 0.01  # 0.17 before
    assert np.median([one.confidence for one in maps]) < 0.35  # 0.47 before


def test_a_recording_shorter_than_a_window_is_refused():
    short = ROOT.parent / 'shared' / 'real_events' / 'test_data_mono_cd'
    if not short.is_dir():
        pytest.skip('the recording is not at hand')
    with pytest.raises(BagError, match='longer'):
        board_maps(untrained_checkpoint('tiny'), short)
