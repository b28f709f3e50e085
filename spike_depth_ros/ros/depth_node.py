"""The node: events in, metric depth out, as a lifecycle node that starts by itself.

All callbacks run in one executor thread. While the node is active they only enqueue, read or, when
asked for a snapshot, write; the work is in `pipeline`.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import InvalidQosOverridesError
from std_srvs.srv import SetBool, Trigger

from spike_depth_ros.estimation.estimator import (
    Estimator,
    EstimatorOptions,
    cut_times_ns,
)
from spike_depth_ros.events.camera import Camera
from spike_depth_ros.ros import params
from spike_depth_ros.ros.calibration import Calibration
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.energy_meter import EnergyMeter
from spike_depth_ros.ros.health import UNTRAINED, Health
from spike_depth_ros.ros.inputs import EventInput, message_class
from spike_depth_ros.ros.lifecycle import FAILURE, SUCCESS, ManagedNode, logged
from spike_depth_ros.ros.outputs import Outputs
from spike_depth_ros.ros.params import ParameterError
from spike_depth_ros.ros.pipeline import Pipeline, Result, Wiring
from spike_depth_ros.ros.preparation import empty_window_s, prepare
from spike_depth_ros.ros.process import quick_executor, run_node
from spike_depth_ros.ros.snapshot import write_snapshot

SETTLED = 'is read when the node is configured: bring it to unconfigured (cleanup) first'
WATCH_PERIOD_S = 0.2
STOP_TIMEOUT_S = 5.0
SAY_AGAIN_S, MAX_SAID = 2.0, 5
"""A fault is logged again after so long, and so many different ones within that time."""

CONFIGURE_ERRORS = (
    ValueError, OSError, RuntimeError, MemoryError, ImportError, InvalidQosOverridesError,
    ParameterException,
)  # fmt: skip
"""What bad weights, calibrations, devices and parameters raise; our own are ValueErrors."""


class DepthNode(ManagedNode):
    """Lifecycle node `depth_node`; see `DepthParameters` and `outputs.OUTPUTS` for its interface.

    Args:
        **options: as of `rclpy.lifecycle.LifecycleNode`, for tests and compositions.
    """

    def __init__(self, **options: Any) -> None:
        # what destroy_node needs exists even where the constructor does not get to its end
        self.pipeline: Pipeline | None = None
        self.outputs: Outputs | None = None
        self.events: EventInput | None = None
        self.calibration = Calibration(self)
        super().__init__('depth_node', **options)
        params.declare(self, DepthParameters)
        params.warn_of_unknown(self, DepthParameters)
        self.parameters = params.read(self, DepthParameters)
        self.checkpoint_path = Path()
        self.checkpoint: Any = None
        self.engine: Any = None
        self.energy: EnergyMeter | None = None
        self._said: dict[str, float] = {}  # faults, and when the log had them
        self._set_up_parameters()
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.create_service(Trigger, '~/snapshot', self._on_snapshot)
        self.health = Health(self, self.create_publisher(DiagnosticArray, '/diagnostics', 10))
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on where /clock stands still
        period_s = self.parameters.diagnostics_period_s
        self._health_timer = self.create_timer(period_s, self.health.publish, clock=steady)
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None,
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=self._on_clock_jump,
        )
        self._autostart_due = self.parameters.autostart

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads everything that can fail; on failure says why and can be tried again."""
        self.parameters = params.read(self, DepthParameters)
        self._health_timer.timer_period_ns = round(self.parameters.diagnostics_period_s * 1e9)
        self._health_timer.reset()  # or the period begins when the present one has ended
        self.last_error = ''
        self.health.publish()  # the last word until all is loaded: 'the node is configuring'
        try:
            self._check(self.parameters)
            self._load()
            self.outputs = Outputs(
                self, self.parameters.output_reliability, self.parameters.output_queue
            )
        except CONFIGURE_ERRORS as error:
            self.last_error = f'cannot configure: {error}'
            self.get_logger().error(self.last_error)
            self._release()
            return FAILURE
        self._tell_what_is_loaded()
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begins to listen."""
        self.last_error = ''
        self.events = EventInput(
            self, self.parameters.event_type, self._start_pipeline, self._on_message
        )
        self.calibration.open()
        result = super().on_activate(state)
        self.events.look()
        return result

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the threads and the subscriptions."""
        self._stop()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets go of weights and publishers."""
        self.last_error = ''
        self._release()
        return SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends everything, from whatever state."""
        self._stop()
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an error nobody expected: back to unconfigured."""
        self.last_error = self.last_error or 'an unexpected error in a lifecycle transition'
        self._stop()
        self._release()
        return SUCCESS

    def destroy_node(self) -> None:
        """Ends the threads before what they use goes away."""
        self._stop()
        super().destroy_node()

    def _load(self) -> None:
        parameters = self.parameters
        if parameters.event_type != 'auto':
            message_class(parameters.event_type)
        self.calibration.load()
        ready = prepare(parameters, self.calibration.camera, self.get_logger())
        self.checkpoint_path, self.checkpoint, self.engine, _ = ready
        self.energy = EnergyMeter(self.checkpoint.model, self.checkpoint.spikes)

    def _tell_what_is_loaded(self) -> None:
        log = self.get_logger()
        log.info(f'{self.checkpoint_path} on {self.engine.device} by {self.parameters.engine}')
        if not self.checkpoint.trained:
            log.warning(UNTRAINED)

    def _start_pipeline(self, type_name: str) -> None:
        """A new topic type means new decoders: the former pipeline ends."""
        self._stop_pipeline()
        wiring = Wiring(
            parameters=lambda: self.parameters,
            camera=self.calibration.camera_for,
            make_estimator=self._make_estimator,
            prepare=functools.partial(
                empty_window_s,
                self.checkpoint,
                self.engine,
                self.parameters.estimator_options,
                self.calibration.camera,
            ),
            wanted=lambda: self.parameters.enabled and self._outputs().wanted(),
            publish=lambda result: self._outputs().publish(result, self.parameters),
            show=lambda result: self._outputs().show(result, self.parameters),
            measure=self._measure,
            now_ns=lambda: self.get_clock().now().nanoseconds,
            say=self._say,
        )
        self.pipeline = Pipeline(type_name, wiring)
        self.pipeline.start()

    def _stop_pipeline(self) -> None:
        if self.pipeline is not None and not self.pipeline.stop(STOP_TIMEOUT_S):
            self.get_logger().warning(f'inference is still busy after {STOP_TIMEOUT_S:g} s')
        self.pipeline = None

    def _stop(self) -> None:
        if self.events is not None:
            self.events.close()
        self.events = None
        self.calibration.close()
        self._stop_pipeline()

    def _release(self) -> None:
        if self.outputs is not None:
            self.outputs.destroy()
        self.outputs = self.checkpoint = self.engine = self.energy = None

    def _outputs(self) -> Outputs:
        if self.outputs is None:
            raise RuntimeError('the node was cleaned up while a thread was busy')
        return self.outputs

    def _measure(self, result: Result, stopped: threading.Event) -> None:
        meter = self.energy
        if meter is not None and self.health.is_heard():
            meter.look(result.job.window.spikes, self.parameters.energy_period_s, stopped)

    def _say(self, sentence: str) -> None:
        """Logs a fault: the same again only after a while, and not too many of them."""
        now_s = time.monotonic()
        recent = {said: s for said, s in self._said.items() if now_s - s < SAY_AGAIN_S}
        if sentence not in recent and len(recent) < MAX_SAID:
            recent[sentence] = now_s
            self.get_logger().error(sentence)
        self._said = recent

    def _make_estimator(
        self, height: int, width: int, camera: Camera | None, options: EstimatorOptions
    ) -> Estimator:
        if self.calibration.camera is None:
            self.get_logger().warning(
                f'no calibration: depth is scaled as for a lens of {camera.fx:.0f} px; '  # type: ignore[union-attr]
                'give camera_info_url or publish camera_info'
            )
        self.get_logger().info(f'estimating depth from a {width}x{height} sensor')
        return Estimator(self.checkpoint, height, width, camera, options, self.engine)

    def _on_message(self, cdr: bytes) -> None:
        if self.pipeline is not None:
            self.pipeline.put(cdr)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE:
            self.get_logger().warning(f'ROS time jumped by {jump.delta.nanoseconds / 1e9:.3f} s')
        if self.pipeline is not None:
            self.pipeline.reset()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.pipeline is not None
        response.message = 'starts from rest' if response.success else f'the node is {self.state}'
        if self.pipeline is not None:
            self.pipeline.reset()
        return response

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        result = self.set_parameters([Parameter('enabled', value=bool(request.data))])[0]
        response.success, response.message = result.successful, result.reason
        return response

    def _on_snapshot(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        pipeline = self.pipeline
        if pipeline is None or pipeline.last is None:
            response.success, response.message = False, self.health.verdict()[1]
            return response
        folder = self.parameters.snapshot_dir
        try:
            path = write_snapshot(pipeline.last, list(pipeline.recent), self.parameters)
            response.success, response.message = True, str(path)
        except (OSError, RuntimeError) as error:  # the latter: ~ of a user who does not exist
            response.success, response.message = False, f'cannot write into {folder}: {error}'
        return response

    def _watch(self) -> None:
        """Five times a second: starts, looks for publishers, notices threads that gave up."""
        if self._autostart_due:
            self._autostart_due = False
            if self.trigger_configure() == SUCCESS:
                self.trigger_activate()
        if self.state != 'active' or self.events is None:
            return
        self.events.look()
        self.calibration.look()
        if self.pipeline is not None and self.pipeline.given_up:
            error = f'deactivated: {self.pipeline.given_up}'
            self.get_logger().error(error)
            self.trigger_deactivate()
            self.last_error = error

    def _set_up_parameters(self) -> None:
        self.add_pre_set_parameters_callback(
            lambda changes: params.whole_numbers_as_floats(DepthParameters, changes)
        )
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)

    def _judge_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        settled = '' if self.state == 'unconfigured' else SETTLED
        return params.judge(self.parameters, changes, settled, self._check)

    def _check(self, parameters: DepthParameters) -> None:
        parameters.check()
        if self.checkpoint is not None:
            cut_times_ns(self.checkpoint.spikes, parameters.estimator_options)

    def _take_parameters(self, changes: list[Parameter]) -> None:
        self.parameters = params.read(self, DepthParameters)
        if self.pipeline is not None:
            self.pipeline.set_max_latency(self.parameters.max_latency_ms)
        wished = any(change.name == 'autostart' for change in changes)
        may_start = self.state == 'unconfigured' and self.parameters.autostart
        if may_start and (wished or self.last_error):  # which may be mended now
            self._autostart_due = True


def executor_of(node: DepthNode) -> Executor:
    """What spins the node, by its parameter."""
    return quick_executor() if node.parameters.executor == 'auto' else SingleThreadedExecutor()


def main(arguments: list[str] | None = None) -> None:
    """Runs the node until it is interrupted."""
    try:
        run_node(DepthNode, arguments, make_executor=executor_of)
    except ParameterError as error:
        print(f'depth_node: {error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()
