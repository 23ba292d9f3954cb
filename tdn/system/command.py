"""What all command lines share: user mistakes become one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable

from .errors import TDNError, UsageError
from .printable import printable_lines
from .version import __version__


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning without the source line that means nothing to a user."""
    print(f"warning: {printable_lines(message)}", file=sys.stderr)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Let ``--version`` print the version of the package and end."""
    parser.add_argument("--version", action="version", version=f"tdn {__version__}")


def run_main(func: Callable[[], int | None], prog: str) -> int:
    """Run a command; return its exit code.

    0 for success, 1 for a `TDNError`, 2 for a `UsageError` (argparse uses 2 by itself), 130 after
    Ctrl-C (a `KeyboardInterrupt` with words is told in these). Any other exception is a defect of
    the program and keeps its traceback, unless it says that a reader closed the pipe.
    """
    warnings.showwarning = _one_line_warning
    # third-party deprecations are the developers' business, not the user's
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", r".*torch\.jit", FutureWarning)  # of PyTorch 2.14, for e3nn
    try:
        return func() or 0
    except TDNError as error:
        print(f"{prog}: error: {printable_lines(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as error:
        print(f"{prog}: {error if error.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
