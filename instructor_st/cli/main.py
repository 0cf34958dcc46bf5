"""Entry point of `instructor-st`: the parser of all commands, and one line for an error."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from instructor_st.cli.evaluate import add_evaluate_command
from instructor_st.cli.review import add_review_commands
from instructor_st.cli.suggest import add_suggest_command
from instructor_st.cli.tasks import add_task_commands

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line; by default that of the process.

    Returns:
        The exit code: 0, or 1 for findings and for bad input (argparse exits with 2 for a wrong command line).
    """
    parser = argparse.ArgumentParser(prog="instructor-st", description="Text embeddings that follow an instruction.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    tasks = commands.add_parser("tasks", help="the registry of tasks and their instructions")
    task_commands = tasks.add_subparsers(dest="task_command", required=True, metavar="COMMAND")
    add_task_commands(task_commands)
    add_review_commands(task_commands)
    add_suggest_command(task_commands)
    add_evaluate_command(commands)
    parsed = parser.parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough; what is left must not raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, KeyError, ImportError) as error:
        # A KeyError's text is its argument in quotes.
        print(f"instructor-st: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    return code
