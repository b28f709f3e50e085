"""`python -m spike_depth_ros` is the `spike_depth` command."""

from spike_depth_ros.cli import main

if __name__ == '__main__':
    main()
