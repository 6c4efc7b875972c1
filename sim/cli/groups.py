"""Groups of commands: a user's mistakes in one line, and imports only where they are needed."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from sim.errors import UserError

_UsageError: Any = typer.BadParameter.__mro__[1]  # typer names it nowhere else

_FIRST = ("run", "scenarios", "new", "report", "page", "demo")
"""The commands that stand first in the help."""


def command_group(**settings: Any) -> typer.Typer:
    """A group of commands, in the help style of all of them: plain text, which also comes up in
    half the time."""
    return typer.Typer(
        no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, **settings
    )


class ErrorReportingGroup(TyperGroup):
    """Prints a user's mistake as one line on standard error and exits with code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        names = super().list_commands(ctx)
        return [*_FIRST, *(name for name in names if name not in _FIRST)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of a command line; ~ is the user's home, after --option= too."""
        parts = [re.match(r"(--[\w-]+=)?(.*)", word, re.DOTALL) for word in args]
        return super().parse_args(
            ctx, [(part[1] or "") + os.path.expanduser(part[2]) for part in parts if part]
        )

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        settle()
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except UserError as error:
            mistake = error
        except _UsageError as error:
            if "\n" in error.message:  # the help, where a command is missing
                raise
            command = error.ctx.command_path if error.ctx else "sim"
            mistake = UserError(f"{error.format_message().rstrip('.')}; see {command} --help")
        except MemoryError:
            mistake = UserError("this takes more memory than there is; make it smaller")
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: no mistake
                raise
            where = "cannot write or read" if error.filename is None else os.fspath(error.filename)
            mistake = UserError(f"{where}: {error.strerror or error}")
            _let_go_of_output()
        for each in (mistake, *mistake.others):
            typer.echo(str(each), err=True)
        raise typer.Exit(2) from None


def lazy_group(name: str) -> type[TyperGroup]:
    """A group whose commands are imported, from ``sim.cli.<name>``, when one of them is asked for:
    most of the start of a command line would go into commands that are not called."""

    class LazyGroup(TyperGroup):
        @cached_property
        def loaded(self) -> TyperGroup:
            module = import_module(f"sim.cli.{name}")
            return typer.main.get_group(getattr(module, f"{name}_app"))

        def list_commands(self, ctx: Any) -> list[str]:
            return self.loaded.list_commands(ctx)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return self.loaded.get_command(ctx, cmd_name)

    return LazyGroup


def settle() -> None:
    """Make the process independent of terminals, notebooks and the working directory."""
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, whatever a notebook asks for
    os.environ["PYTHONSAFEPATH"] = "1"  # processes started here import nothing that lies around
    if sys.stdout is None:  # closed by whoever called
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an encoding may lack letters of a file name
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Where standard output takes nothing more, the end of this process must not fail on it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
