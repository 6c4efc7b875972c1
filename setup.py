"""Which packages there are: those found, and two of data that lie elsewhere in the repository."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=("channels*", "codec*", "sim*")),
        "sim.samples",
        "sim.shipped",
        "sim.report.templates",
    ]
)
