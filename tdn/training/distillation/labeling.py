"""Structures to the teacher, several at once; labels come back in any order."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase

from tdn.evaluation.teachers.process import CalculatorProcess, Label, WorkerDied
from tdn.evaluation.teachers.source import CalculatorSource
from tdn.system.errors import TDNError, UsageError

# a structure whose worker died so often is set aside
TRIES = 3


def label_structures(
    structures: Sequence[ase.Atoms],
    source: CalculatorSource,
    folder: Path,
    workers: int | str = 1,
    scheduler: str | None = None,
) -> Iterator[tuple[int, Label | str]]:
    """Labels as they are ready: number of the structure, and its label or why there is none.

    Parameters
    ----------
    folder : of the workers' files
    workers : processes, or ``dask``
    scheduler : address, for dask; None: a cluster on this machine

    Raises
    ------
    TDNError
        If the teacher cannot be started at all.
    """
    if not structures:
        return
    if workers == "dask":
        yield from _label_with_dask(structures, source, folder, scheduler)
        return
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[int, Label | str | BaseException]] = queue.SimpleQueue()
    for index in range(len(structures)):
        tasks.put(index)
    processes = [
        CalculatorProcess(source, folder / f"worker_{i}")
        for i in range(min(int(workers), len(structures)))
    ]

    def work(process: CalculatorProcess) -> None:
        while True:
            try:
                index = tasks.get_nowait()
            except queue.Empty:
                process.close()
                return
            try:
                answers.put((index, label_one(process, structures[index])))
            except BaseException as error:  # for the thread that waits
                answers.put((index, error))
                return

    threads = [threading.Thread(target=work, args=(p,), daemon=True) for p in processes]
    for thread in threads:
        thread.start()
    try:
        for _ in structures:
            index, answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            yield index, answer
    finally:
        for _ in structures:  # after an error or Ctrl-C nothing new is begun
            with contextlib.suppress(queue.Empty):
                tasks.get_nowait()
        for process in processes:
            process.close()
        for thread in threads:
            thread.join()


def label_one(process: CalculatorProcess, atoms: ase.Atoms) -> Label | str:
    """The label of a structure, or why it has none; a worker that dies is started again.

    Raises
    ------
    UsageError
        If the calculator cannot be made.
    """
    for left in reversed(range(TRIES)):
        try:
            label = process.label(atoms)
        except UsageError:
            raise
        except WorkerDied as error:
            if not left:
                return f"{error}, {TRIES} times"
            continue
        except TDNError as error:
            return str(error)
        return label if label.finite else "NaN or infinity in energy, forces or stress"
    raise AssertionError("unreachable")


_processes: dict[Path, CalculatorProcess] = {}


def label_in_dask(source: CalculatorSource, folder: Path, atoms: ase.Atoms) -> Label | str:
    """What a worker of Dask runs: the teacher stays alive between structures."""
    from distributed import get_worker

    place = folder / str(get_worker().id).replace("/", "_").replace(":", "_")
    if place not in _processes:
        _processes[place] = CalculatorProcess(source, place)
    return label_one(_processes[place], atoms)


def end_teachers(folder: Path) -> None:
    """What workers of Dask run in the end: they may live on, and label for others."""
    for place in [place for place in _processes if place.parent == folder]:
        _processes.pop(place).close()


def _label_with_dask(
    structures: Sequence[ase.Atoms], source: CalculatorSource, folder: Path, scheduler: str | None
) -> Iterator[tuple[int, Label | str]]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise TDNError(
            "teacher.workers: dask needs the package distributed; install it with: "
            "pip install distributed"
        ) from None
    options: dict[str, Any] = {} if scheduler is not None else {"threads_per_worker": 1}
    try:
        client = Client(scheduler, timeout=30, **options)
    except (OSError, ValueError) as error:
        raise TDNError(
            f"no scheduler of Dask at teacher.scheduler = {scheduler} ({error}); start one with: "
            "dask scheduler"
        ) from None
    folder = folder.absolute()
    with client:
        futures = {
            client.submit(label_in_dask, source, folder, atoms, pure=False, retries=TRIES): index
            for index, atoms in enumerate(structures)
        }
        try:
            for future in as_completed(list(futures)):
                try:
                    answer = future.result()
                except TDNError:
                    raise
                except Exception as error:  # of Dask: a structure that ends every worker
                    answer = f"{type(error).__name__}: {error}"
                yield futures[future], answer
        finally:
            with contextlib.suppress(OSError):  # where the scheduler has ended
                client.cancel(list(futures))
                client.run(end_teachers, folder, on_error="ignore")
