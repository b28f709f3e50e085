"""Files that parameters name: paths, `file://` and `package://PACKAGE/FILE`."""

from __future__ import annotations

from ament_index_python.packages import get_package_share_directory

from spike_depth_ros.ros.params import ParameterError


def local_path(url: str, parameter: str) -> str:
    """The path that a parameter means.

    Args:
        url: a path, a `file://` URL, or `package://PACKAGE/FILE` of an installed ROS package.
        parameter: its name, for errors.

    Raises:
        ParameterError: the package is not installed here, or the scheme is another one.
    """
    scheme, separator, rest = url.partition('://')
    if not separator:
        return url
    if scheme == 'file':
        return rest
    package, _, file = rest.partition('/')
    if scheme != 'package' or not package or not file:
        raise ParameterError(
            f'{parameter} is {url!r}, expected a path, file:///PATH or package://PACKAGE/FILE'
        )
    try:
        return f'{get_package_share_directory(package)}/{file}'
    except (LookupError, OSError, ValueError) as error:
        raise ParameterError(
            f'{parameter} is {url!r}, but the package {package} is not installed here: source the '
            'workspace that has it, or give a path'
        ) from error
