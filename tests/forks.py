"""Processes that begin with everything imported, for tests that kill them.

A server that has imported the package forks them, so that one starts in no time instead of seconds.
That the commands start by themselves is for other tests to see.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "e3nn.o3",
        "torch._dynamo",
        "tdn.evaluation.figures",
        "tdn.training.distillation.run",
        "tdn.training.run.final_report",
        "tdn.training.trainer",
        "tdn_export.exporter",
    ]
)


def start(
    main: Callable[[list[str]], int],
    arguments: list[str],
    log: Path,
    folder: Path | None = None,
    **environment: str,
) -> BaseProcess:
    """A process that runs a command, given by its function of a module that can be imported.

    Parameters
    ----------
    log : file for its output
    folder : where it runs
    environment : changes of the environment variables
    """
    rest = (main, arguments, log, folder, environment)
    process = CONTEXT.Process(target=_run, args=rest, daemon=True)
    process.start()
    return process


def _run(
    main: Callable[[list[str]], int],
    arguments: list[str],
    log: Path,
    folder: Path | None,
    environment: dict[str, str],
) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    raise SystemExit(main(arguments))
