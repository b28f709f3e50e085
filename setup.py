"""The one source of this package's metadata; `colcon build` and pip read the same."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'spike_depth_ros'
HERE = Path(__file__).resolve().parent  # `colcon build --symlink-install` runs a link to this file
SHARE = f'share/{PACKAGE}'


def version() -> str:
    """Returns the version that the package itself states."""
    text = (HERE / PACKAGE / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def share(folder: str, pattern: str) -> tuple[str, list[str]]:
    """One `data_files` entry: the files of a folder, installed under the package's share."""
    files = sorted((HERE / folder).glob(pattern))
    return f'{SHARE}/{folder}', [str(file.relative_to(HERE)) for file in files]


setup(
    name=PACKAGE,
    version=version(),
    description='Metric depth from event cameras by a spiking transformer, for ROS 2',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='spike_depth_ros maintainers',
    author_email='maintainers@users.noreply.r-seed-22cb36c3.example',
    maintainer='spike_depth_ros maintainers',
    maintainer_email='maintainers@users.noreply.r-seed-22cb36c3.example',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={
        PACKAGE: ['py.typed', 'learning/datasets/splits/*.txt', 'learning/templates/*.html']
    },
    python_requires='>=3.11',
    # test_private_names.py tells whether the bounds of numba and torch may be raised
    install_requires=[
        'setuptools',
        'numpy',
        'numba<0.69',
        'opencv-python-headless',
        'pyyaml',
        'jinja2',
        'torch>=2.6,<2.14',
        # spikingjelly 2 goes in with --no-deps: it asks for a torchvision that it does not use
        'spikingjelly>=2',
        'safetensors',
        'rosbags>=0.11',
        'lz4',
        'h5py',
        'hdf5plugin',
        'jsonargparse[signatures]',
        'tqdm',
        'matplotlib',
    ],
    extras_require={
        'train': ['lightning', 'torchmetrics', 'tensorboard', 'transformers'],
        'export': ['onnx', 'onnxscript'],
        'test': [
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'pytest-cov',
            'codespell',
            'hypothesis',
            'ruff',
            'mypy',
            'types-PyYAML',
            'types-tqdm',
            'colcon-common-extensions',
            'evt3',
            'mcap',
            'onnxruntime',
        ],
        'view': ['rerun-sdk'],
        'docs': ['mkdocs<2', 'mkdocs-material', 'mkdocstrings[python]'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (SHARE, ['package.xml']),
        share('launch', '*.launch.py'),
        share('config', '*.*'),
        share('config/foxglove', '*.json'),
        share('config/nav2', '*.yaml'),
        share('config/train', '*.yaml'),
        share('config/evaluate', '*.yaml'),
        share('config/ablate', '*.yaml'),
        share('models', '*.*'),
    ],
    zip_safe=True,
    entry_points={
        'console_scripts': [
            'spike_depth = spike_depth_ros.cli:main',
            'depth_node = spike_depth_ros.ros.executables:depth_node',
            'replay_node = spike_depth_ros.ros.executables:replay_node',
            'depth_rviz = spike_depth_ros.ros.executables:depth_rviz',
        ],
    },
)
