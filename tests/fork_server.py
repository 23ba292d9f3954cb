"""A server that has loaded libraries and forks programs which need them, one for each request.

``python fork_server.py SOCKET python`` or ``python fork_server.py SOCKET lammps LIBRARY...``, where
SOCKET is the number of a file that listens. A request is the arguments, the folder and the
environment of a program, with its files; `forks` makes them. What a program does is up to its
arguments, as if it had been started by itself.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import marshal
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

# nothing of this repository, whose modules look at the environment when they are imported
PACKAGES = """
    ase.calculators.emt ase.calculators.lj ase.io.extxyz ase.neighborlist e3nn.o3 lmdb
    matplotlib.figure matplotlib.backends.backend_agg numpy scipy.optimize scipy.spatial scipy.stats
    torch torch._dynamo torch.distributed.nn torch.distributed.run torch.utils.data tqdm vesin yaml
""".split()
NUMBER = struct.Struct("=i")
MPI_COMM_WORLD = 0x44000000  # of MPICH
ABORT = 2  # lammps_get_last_error_message of an error that not all ranks know of

Main = Callable[[list[str]], None]


def serve(listener: socket.socket, main: Main) -> None:
    """For ever: fork what is asked for, tell who asked its number and exit code.

    A program ends when nobody listens any more.
    """
    gc.freeze()  # collecting what is there already would copy all its memory
    programs: dict[socket.socket, tuple[int, int]] = {}  # number, and a file that tells its end
    while True:
        ends = [end for _, end in programs.values()]
        ready, _, _ = select.select([listener, *programs, *ends], [], [])
        for connection, (number, end) in list(programs.items()):
            if end in ready:
                _, status = os.waitpid(number, 0)
                tell(connection, os.waitstatus_to_exitcode(status))
                connection.close()
                os.close(end)
                del programs[connection]
            elif connection in ready:
                os.killpg(number, signal.SIGKILL)
        if listener in ready:
            connection, _ = listener.accept()
            request, files = receive(connection)
            number = os.fork()
            if number == 0:
                os.setpgid(0, 0)
                for other in (listener, connection, *programs):
                    other.close()
                for _, end in programs.values():
                    os.close(end)
                arguments, folder, environment = request
                become(folder, environment, files)
                run_to_the_end(main, arguments)
            with suppress(OSError):  # where it has done so itself
                os.setpgid(number, number)
            for file in files:
                os.close(file)
            tell(connection, number)
            programs[connection] = (number, os.pidfd_open(number))


def receive(connection: socket.socket) -> tuple[tuple, list[int]]:
    """Arguments, folder and environment of a program, and its files."""
    head, files, *_ = socket.recv_fds(connection, NUMBER.size, 4)
    with connection.makefile("rb") as stream:
        return marshal.loads(stream.read(*NUMBER.unpack(head))), files


def tell(connection: socket.socket, number: int) -> None:
    """Send a number, unless nobody listens any more."""
    with suppress(BrokenPipeError):
        connection.sendall(NUMBER.pack(number))


def run_to_the_end(main: Main, arguments: list[str]) -> None:
    """Run a program and end as Python does, but for freeing what is there already."""
    code = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def become(folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Take over what belongs to a process; the fourth file is that of MPICH's process manager."""
    names = [0, 1, 2, *[int(environment[key]) for key in ("PMI_FD",) if key in environment]]
    high = [os.dup2(file, 200 + number) for number, file in enumerate(files)]
    for file in files:
        os.close(file)
    for file, name in zip(high, names, strict=True):
        os.dup2(file, name)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def run_python(arguments: list[str]) -> None:
    """As ``python -c CODE``, ``python -m MODULE``, ``python FILE``, or a command beside it."""
    program, *rest = arguments
    sys.executable = os.path.join(os.path.dirname(program), "python")
    if not os.path.basename(program).startswith("python"):
        rest = [os.path.join(sys.prefix, "bin", os.path.basename(program)), *rest]
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if rest[0] == "-u" or os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
        rest = rest[rest[0] == "-u" :]
    if rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        sys.path.insert(0, "")
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif rest[0] == "-m":
        sys.argv = rest[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        sys.path.insert(0, os.path.dirname(os.path.abspath(rest[0])))
        runpy.run_path(rest[0], run_name="__main__")


def lammps_main(paths: list[str]) -> Main:
    """What ``lmp -in FILE`` does, by libraries of MPI and LAMMPS; others are loaded as well."""
    c_library = ctypes.CDLL(None)
    mpi, library = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in paths[:2]]
    for path in paths[2:]:
        ctypes.CDLL(path)
    message = ctypes.create_string_buffer(1024)
    library.lammps_open_no_mpi.restype = ctypes.c_void_p
    plugins = os.environ["LAMMPS_PLUGIN_PATH"]

    def main(arguments: list[str]) -> None:
        os.environ["LAMMPS_PLUGIN_PATH"] = plugins
        # What MPI does at exit comes before this; taking PyTorch apart, which would follow, takes
        # longer than most of what tests do.
        c_library.on_exit(ctypes.cast(c_library._exit, ctypes.c_void_p), None)
        words = [os.fsencode(word) for word in arguments]
        words_of_c = (ctypes.c_char_p * len(words))(*words)
        run = ctypes.c_void_p(library.lammps_open_no_mpi(len(words), words_of_c, None))
        library.lammps_file(run, words[words.index(b"-in") + 1])
        wrong = library.lammps_has_error(run)
        if not wrong:
            library.lammps_close(run)
        elif library.lammps_get_last_error_message(run, message, len(message)) == ABORT:
            mpi.MPI_Abort(MPI_COMM_WORLD, 1)
        mpi.MPI_Finalize()
        c_library.fflush(None)
        c_library.exit(wrong)

    return main


if __name__ == "__main__":
    number, kind, *libraries = sys.argv[1:]
    listener = socket.socket(fileno=int(number))
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    if kind == "python":
        select.select([listener], [], [])  # perhaps nobody needs it
        for name in PACKAGES:
            importlib.import_module(name)
        serve(listener, run_python)
    else:
        serve(listener, lammps_main(libraries))
