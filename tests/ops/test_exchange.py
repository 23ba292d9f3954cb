"""exchange: the identity without a transport; with one, rows of ghosts and their adjoint."""

import ctypes
import threading

import pytest
import torch

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

OWNERS = [2, 0, 2, 1]  # of the ghosts after three local atoms


class Loopback:
    """Handle of the transport in ``loopback_exchange.cpp``."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        library.loopback_thread.restype = library.loopback_rows.restype = ctypes.c_uint64
        library.loopback_log.restype = ctypes.c_int64

    def install(self, owners: list[int]) -> None:
        array = (ctypes.c_int64 * max(1, len(owners)))(*owners)
        self.library.loopback_install(array, ctypes.c_int64(len(owners)))

    def calls(self) -> list[tuple[int, ...]]:
        numbers = (ctypes.c_int64 * 1000)()
        count = self.library.loopback_log(numbers, ctypes.c_int64(1000))
        return [tuple(numbers[k : k + 5]) for k in range(0, count, 5)]


@pytest.fixture(scope="module")
def loopback_library(compiled, compile_library):
    library = ops.library_path()
    return Loopback(
        compile_library(
            "loopback_exchange.cpp",
            *(str(library), f"-Wl,-rpath,{library.parent}", "-Wl,--allow-shlib-undefined"),
        )
    )


@pytest.fixture
def loopback(loopback_library):
    loopback_library.install(OWNERS)
    yield loopback_library
    loopback_library.library.loopback_remove()


def random(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=dtype, generator=generator)


@pytest.mark.parametrize("shape", [(3, 2, 4), (0, 5), (4,)], ids=str)
@pytest.mark.parametrize("exchange", [ops.exchange, reference.exchange])
def test_identity_without_transport(exchange, shape):
    x = random(*shape).requires_grad_()
    y = exchange(x, shape[0])
    assert torch.equal(y, x)
    g = random(*shape, seed=1)
    assert torch.equal(torch.autograd.grad(y, x, g)[0], g)


@pytest.mark.parametrize("exchange", [ops.exchange, reference.exchange])
def test_ghosts_need_a_transport(exchange):
    with pytest.raises(ValueError, match="no transport"):
        exchange(random(3, 2), 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_of_ghosts_and_adjoint(loopback, dtype):
    x = random(3, 2, 5, dtype=dtype).requires_grad_()
    y = ops.exchange(x, 7)
    assert torch.equal(y, torch.cat([x, x[OWNERS]]))
    g = random(7, 2, 5, dtype=dtype, seed=1)
    (found,) = torch.autograd.grad(y, x, g)
    expected = g[:3].clone().index_add_(0, torch.tensor(OWNERS), g[3:])
    torch.testing.assert_close(found, expected)
    is_double = int(dtype == torch.float64)
    assert loopback.calls() == [(1, 3, 7, 10, is_double), (-1, 3, 7, 10, is_double)]


def test_non_contiguous_rows(loopback):
    x = random(5, 3).T
    assert not x.is_contiguous()
    assert torch.equal(ops.exchange(x, 7), torch.cat([x, x[OWNERS]]))


def test_gradcheck(loopback):
    x = random(3, 2).requires_grad_()

    def function(x):
        return ops.exchange(x, 7).sin()

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_adjoint_runs_on_the_calling_thread(loopback):
    x = random(3, 2).requires_grad_()
    y = ops.exchange(x.exp(), 7).sin().sum()
    results = []

    def work():
        (gradient,) = torch.autograd.grad(y, x, retain_graph=True)
        results.append((gradient, loopback.library.loopback_thread(), threading.get_ident()))

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [used for _, used, _ in results] == [own for _, _, own in results]
    assert results[0][2] != results[1][2]
    assert torch.equal(results[0][0], results[1][0])


def test_collective_without_ghosts_and_without_atoms(loopback):
    loopback.install([])
    for rows in (3, 0):
        x = random(rows, 4).requires_grad_()
        y = ops.exchange(x, rows)
        assert torch.equal(y, x)
        torch.autograd.grad(y.sum(), x)
    assert loopback.calls() == [
        (1, 3, 3, 4, 1),
        (-1, 3, 3, 4, 1),
        (1, 0, 0, 4, 1),
        (-1, 0, 0, 4, 1),
    ]


def test_adjoint_takes_part_where_the_gradient_is_zero(loopback):
    """A process whose result does not depend on the rows must still communicate."""
    x = random(3, 4).requires_grad_()
    y = ops.exchange(x, 7)
    torch.autograd.grad((y[:0].sum() + x.sum()), x)
    assert [call[0] for call in loopback.calls()] == [1, -1]


def test_inside_torchscript(loopback):
    scripted = torch.jit.script(ops.exchange)
    x = random(3, 4)
    assert torch.equal(scripted(x, 7), torch.cat([x, x[OWNERS]]))


def test_errors(loopback):
    with pytest.raises(ValueError, match="found 3 local atoms of 2"):
        ops.exchange(random(3, 4), 2)
    with pytest.raises(ValueError, match="must be float32 or float64"):
        ops.exchange(random(3, 4).long(), 7)
    with pytest.raises(ValueError, match="a row per atom"):
        ops.exchange(random(), 7)
    loopback.library.loopback_fail()
    with pytest.raises(RuntimeError, match="transport lost"):
        ops.exchange(random(3, 4), 7)


def test_set_and_get(loopback):
    assert loopback.library.loopback_is_installed()
    loopback.library.loopback_remove()
    assert not loopback.library.loopback_is_installed()
