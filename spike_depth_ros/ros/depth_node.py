"""The node: events in, metric depth out, as a lifecycle node that starts by itself.

All callbacks run in one executor thread. While the node is active they only enqueue, read or, when
asked for a snapshot, write; the work is in `pipeline`.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockChange, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos_overriding_options import InvalidQosOverridesError
from std_srvs.srv import SetBool, Trigger

from spike_depth_ros.ros import params
from spike_depth_ros.ros.bond import STATUS, Bond
from spike_depth_ros.ros.calibration import Calibration
from spike_depth_ros.ros.camera_transform import TRANSFORMS, CameraTransform
from spike_depth_ros.ros.condition_log import ConditionLog
from spike_depth_ros.ros.depth_parameters import DepthParameters
from spike_depth_ros.ros.energy_meter import EnergyMeter
from spike_depth_ros.ros.health import UNTRAINED, Health, View
from spike_depth_ros.ros.inputs import EventInput, event_class, message_class
from spike_depth_ros.ros.lifecycle import FAILURE, SUCCESS, ManagedNode, logged
from spike_depth_ros.ros.loaded_network import LoadedNetwork, load_network
from spike_depth_ros.ros.odometry import ScaleInput
from spike_depth_ros.ros.outputs import Outputs
from spike_depth_ros.ros.params import Live, ParameterError
from spike_depth_ros.ros.pipeline import Parts, Pipeline
from spike_depth_ros.ros.process import (
    InterruptedBySignalError,
    executor_for,
    run_interruptibly,
    run_node,
    trim_memory,
)
from spike_depth_ros.ros.registration import Registration
from spike_depth_ros.ros.snapshot import write_snapshot
from spike_depth_ros.ros.transforms import Transforms

SETTLED = 'is read when the node is configured: bring it to unconfigured (cleanup) first'
WATCH_PERIOD_S = 0.2

STOP_TIMEOUT_S, END_TIMEOUT_S = 5.0, 0.3
"""A deactivation, and the end of the process, wait this long for the window that is being run."""

CONFIGURE_ERRORS = (
    ValueError, OSError, RuntimeError, MemoryError, ImportError, InvalidQosOverridesError,
    ParameterException, InterruptedBySignalError,
)  # fmt: skip
"""What bad weights, calibrations, devices and parameters raise; our own are ValueErrors."""


class DepthNode(ManagedNode):
    """Lifecycle node `depth_node`; see `DepthParameters` and `outputs.OUTPUTS` for its interface.

    Args:
        ended: set when the process is to end; a configuration that is under way then stops.
        **options: as of `rclpy.lifecycle.LifecycleNode`, for tests and compositions.

    Attributes:
        live: the parameters.
        calibration: of the camera.
        scale: of depth by the motion of the robot.
        registration: of depth to another camera.
        transforms: poses from tf.
        camera_transform: from the robot to the camera, if the node publishes it.
        bond: with a lifecycle manager; None unless the node is active and asked for it.
        network: what runs; None before the node is configured.
        outputs: the publishers; None before the node is configured.
        energy: of the network; None before the node is configured.
        events: the subscription; None unless the node is active.
        pipeline: the work; None before the first publisher of events.
    """

    def __init__(self, ended: threading.Event | None = None, **options: Any) -> None:
        # what destroy_node needs exists even where the constructor does not get to its end
        self.network: LoadedNetwork | None = None
        self.outputs: Outputs | None = None
        self.energy: EnergyMeter | None = None
        self.events: EventInput | None = None
        self.pipeline: Pipeline | None = None
        self._ended = ended or threading.Event()
        self.calibration: Any = None  # a Calibration, as soon as there is a node
        self.scale: Any = None  # likewise a ScaleInput
        self.registration: Any = None  # likewise a Registration
        self.transforms: Any = None  # likewise Transforms
        self.camera_transform: Any = None  # likewise a CameraTransform
        self.bond: Bond | None = None
        super().__init__('depth_node', **options)
        self._log = ConditionLog(self.get_logger())
        params.declare(self, DepthParameters)
        params.warn_of_unknown(self, DepthParameters)
        self.live = Live(params.read(self, DepthParameters))
        self.calibration = Calibration(self, self.live, self._log)
        self.transforms = Transforms(self)
        self.scale = ScaleInput(self, self.live, self.transforms)
        self.registration = Registration(self, self.live, self._log, self.transforms)
        self.camera_transform = CameraTransform(self, self.live)
        self._active_since_s = math.inf
        self._set_up_parameters()
        self._set_up_services()
        self._autostart_due = self.live.now.autostart

    def _set_up_services(self) -> None:
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)
        self.create_service(Trigger, '~/snapshot', self._on_snapshot)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        name = self.get_fully_qualified_name().lstrip('/')
        self.health = Health(
            name, self._diagnostics, self.get_clock(), self._log, self.get_logger()
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on where /clock stands still
        period_s = self.live.now.diagnostics_period_s
        self._health_timer = self.create_timer(
            period_s, lambda: self.health.publish(self.view()), clock=steady
        )
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(
                min_forward=None,
                min_backward=Duration(nanoseconds=-1),
                on_clock_change=True,
            ),
            post_callback=self._on_clock_jump,
        )

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads everything that can fail; on failure says why and can be tried again."""
        self.live.now = params.read(self, DepthParameters)
        self.get_logger().debug(f'configuring with {self.live.now}')
        self._health_timer.timer_period_ns = round(self.live.now.diagnostics_period_s * 1e9)
        self._health_timer.reset()  # or the period begins when the present one has ended
        self.last_error = ''
        self.health.publish(self.view())  # 'configuring', until all is loaded
        try:
            self._check(self.live.now)
            self._load()
            self.outputs = Outputs(self, self.live, self.registration)
        except CONFIGURE_ERRORS as error:
            self._release()
            if isinstance(error, InterruptedBySignalError):
                return FAILURE
            self.last_error = f'cannot configure: {error}'
            self.get_logger().error(self.last_error)
            return FAILURE
        return super().on_configure(state)

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begins to listen."""
        self.last_error = ''
        self._active_since_s = time.monotonic()
        self.events = EventInput(self, self.live.now.event_type, self._log, self._start_pipeline,
                                 self._on_message, self._on_unread)  # fmt: skip
        self.calibration.open()
        self.scale.open()
        self.registration.open()
        self.camera_transform.open()
        result = super().on_activate(state)
        self.events.look(self._is_idle())
        if self.live.now.bond_period_s:
            self.bond = Bond(self, self.live.now.bond_period_s)
        return result

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the threads and the subscriptions."""
        self._stop(STOP_TIMEOUT_S)
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
        self._stop(STOP_TIMEOUT_S)
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected error: back to unconfigured."""
        self.last_error = self.last_error or 'an unexpected error in a lifecycle transition'
        self._stop(STOP_TIMEOUT_S)
        self._release()
        return SUCCESS

    def destroy_node(self) -> None:
        """Ends the threads before what they use goes away."""
        self._stop(END_TIMEOUT_S)
        super().destroy_node()

    def view(self) -> View:
        """What the node consists of at this moment."""
        return View(
            state=self.state,
            last_error=self.last_error,
            active_s=max(0.0, time.monotonic() - self._active_since_s),
            parameters=self.live.now,
            calibration=self.calibration,
            network=self.network,
            outputs=self.outputs,
            energy=self.energy,
            scale=self.scale,
            registration=self.registration,
            events=self.events,
            pipeline=self.pipeline,
        )

    def _load(self) -> None:
        parameters = self.live.now
        if parameters.event_type != 'auto':
            event_class(parameters.event_type)
        if parameters.bond_period_s:
            message_class(STATUS)
        if parameters.publish_tf:
            message_class(TRANSFORMS)
        self.calibration.load()
        camera = self.calibration.camera

        def load() -> tuple[LoadedNetwork, EnergyMeter]:
            network = load_network(parameters, camera)
            return network, EnergyMeter(network.checkpoint.model, network.checkpoint.spikes)

        self.network, self.energy = run_interruptibly(load, self._ended)
        trim_memory()
        engine = self.network.engine.device
        self.get_logger().info(f'{self.network.path} on {engine} by {parameters.engine}')
        if not self.network.checkpoint.trained:
            self.get_logger().warning(UNTRAINED)

    def _start_pipeline(self, type_name: str) -> None:
        """A new topic type means new decoders: the former pipeline ends."""
        self._stop_pipeline(STOP_TIMEOUT_S)
        if self.network is None or self.outputs is None or self.energy is None:
            raise RuntimeError('the node is active, but was never configured')
        self.pipeline = Pipeline(type_name, Parts(
            live=self.live,
            network=self.network,
            calibration=self.calibration,
            outputs=self.outputs,
            energy=self.energy,
            scale=self.scale,
            diagnostics=self._diagnostics,
            clock=self.get_clock(),
            log=self._log,
        ))  # fmt: skip
        self.pipeline.start()

    def _stop_pipeline(self, timeout_s: float) -> None:
        if self.pipeline is not None and not self.pipeline.stop(timeout_s):
            self.get_logger().warning(f'a thread is still busy after {timeout_s:g} s')
        self.pipeline = None

    def _stop(self, timeout_s: float) -> None:
        self._active_since_s = math.inf
        if self.bond is not None:
            self.bond.close()
        self.bond = None
        if self.events is not None:
            self.events.close()
        self.events = None
        parts = (self.calibration, self.scale, self.registration, self.transforms,
                 self.camera_transform)  # fmt: skip
        for part in parts:
            if part is not None:
                part.close()
        self._stop_pipeline(timeout_s)

    def _release(self) -> None:
        if self.outputs is not None:
            self.outputs.destroy()
        self.outputs = self.network = self.energy = None
        trim_memory()

    def _on_message(self, cdr: bytes) -> None:
        if self.pipeline is not None:
            self.pipeline.put(cdr)

    def _on_unread(self, messages: list[bytes]) -> None:
        if self.pipeline is not None:
            self.pipeline.skip(messages)

    def _is_idle(self) -> bool:
        """Whether depth is not needed: paused, or nobody subscribes to an output."""
        return not (self.live.now.enabled and self.outputs and self.outputs.wanted())

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
            self.get_logger().info('reset: all earlier events are forgotten')
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
            response.success, response.message = False, self.health.verdict(self.view()).message
            return response
        folder = self.live.now.snapshot_dir
        try:
            path = write_snapshot(pipeline.last, list(pipeline.recent), self.live.now)
            response.success, response.message = True, str(path)
        except (OSError, RuntimeError) as error:  # the latter: ~ of a user who does not exist
            response.success, response.message = False, f'cannot write into {folder}: {error}'
        return response

    def _watch(self) -> None:
        """Five times a second: starts, and looks for publishers."""
        if self._autostart_due:
            self._autostart_due = False
            if self.trigger_configure() == SUCCESS:
                self.trigger_activate()
        if self.state == 'active' and self.events is not None:
            self.events.look(self._is_idle())
            self.calibration.look()
            self.scale.look()
            self.registration.look()
            if self.pipeline is not None:
                self.camera_transform.look(self.pipeline.frame_id)

    def _set_up_parameters(self) -> None:
        self.add_pre_set_parameters_callback(
            lambda changes: params.whole_numbers_as_floats(DepthParameters, changes)
        )
        self.add_on_set_parameters_callback(self._judge_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)

    def _judge_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        settled = '' if self.state == 'unconfigured' else SETTLED
        return params.judge(self.live.now, changes, settled, self._check)

    def _check(self, parameters: DepthParameters) -> None:
        parameters.check()
        if self.network is not None:
            self.network.check(parameters)
        roi, camera = parameters.estimator_options.roi, self.calibration.camera
        if roi is not None and camera is not None:
            roi.check(camera.height, camera.width)

    def _take_parameters(self, changes: list[Parameter]) -> None:
        self.live.now = params.read(self, DepthParameters)
        for change in changes:
            self.get_logger().debug(f'{change.name} is now {change.value!r}')
        if self.pipeline is not None:
            self.pipeline.set_max_latency(self.live.now.max_latency_ms)
        wished = any(change.name == 'autostart' for change in changes)
        may_start = self.state == 'unconfigured' and self.live.now.autostart
        if may_start and (wished or self.last_error):  # which may be mended now
            self._autostart_due = True


def main(arguments: list[str] | None = None) -> None:
    """Runs the node until it is interrupted."""
    try:
        run_node(
            DepthNode,
            arguments,
            make_executor=lambda node: executor_for(node.live.now.executor, node.get_logger()),
        )
    except ParameterError as error:
        print(f'depth_node: {error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()
