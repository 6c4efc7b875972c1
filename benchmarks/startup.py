"""Processor time of `sim --help` as a multiple of importing what any typer program imports.

python -m benchmarks.startup
"""

from __future__ import annotations

import resource
import subprocess
import sys

COMMANDS = {"sim --help": ("-m", "sim", "--help"), "imports": ("-c", "import typer, rich")}


def seconds(*arguments: str) -> float:
    """Processor time of another Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    # The least of several alternating runs: other load on the machine only adds.
    runs = [{name: seconds(*command) for name, command in COMMANDS.items()} for _ in range(15)]
    least = {name: min(run[name] for run in runs) for name in COMMANDS}
    for name, value in least.items():
        print(f"{name}: {1000 * value:.0f} ms")
    print(f"ratio: {least['sim --help'] / least['imports']:.2f} (goal: at most 2)")


if __name__ == "__main__":
    main()
