r"""Tensor products of equivariant features in CP form.

:class:`CPTensorProduct` computes, for channels connected as in e3nn's modes,

.. math:: z_{kw} = \sum_{uv} W_{uvw} \sum_r C_{kr} \Big(\sum_i A_{ir} x_{iu}\Big)
                   \Big(\sum_j B_{jr} y_{jv}\Big)

(arXiv 2507.01131, section 3): the projections A^T x and B^T y cost D R per channel, the rest is
elementwise in rank space. With one weight set for all coupling paths (path-weight sharing) the
factors of :func:`tdn.cp.load_factors` do all the coupling. Without sharing every path p has its own
weights; its block of the coupling tensor is then taken from rows of the same factors.

Normalization equals e3nn's default (``component``, ``element``): for inputs and weights of unit
variance, every output component has a variance near 1.
"""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn

from tdn.system.errors import TDNError

from .couplings import coupling_paths, coupling_tensor, degree_slice, dimension
from .library import CPFactors, load_factors, paper_rank

MODES = {
    "uvw": ("u", "v", "w", "uvw"),
    "uvu": ("u", "v", "u", "uv"),
    "uvv": ("u", "v", "v", "uv"),
    "uuw": ("u", "u", "w", "uw"),
    "uuu": ("u", "u", "u", "u"),
}
"""Channel indices of first input, second input, output, and weights for each connection mode."""

LAYOUTS = ("components", "e3nn")


def uniform_irreps(l_max: int, channels: int, paths: str = "parity") -> o3.Irreps:
    """Irreps of features [N, (l_max + 1)^2, channels]: ``Cx0e+Cx1o+Cx2e+...``.

    With ``paths="all"`` inversion is not a symmetry and every parity is ``e``.
    """
    parity = (lambda degree: (-1) ** degree) if paths == "parity" else (lambda degree: 1)
    return o3.Irreps([(channels, (degree, parity(degree))) for degree in range(l_max + 1)])


def parse_irreps(irreps: o3.Irreps | str, paths: str, name: str) -> tuple[int, int]:
    """Largest degree and number of channels of irreps that have the uniform layout.

    Raises
    ------
    TDNError
        Unless every degree 0..l_max occurs once, in order, with one multiplicity and the parity
        that belongs to ``paths``.
    """
    try:
        irreps = o3.Irreps(irreps)
    except (ValueError, AssertionError) as error:
        raise TDNError(f"{name} is not a valid e3nn irreps: {irreps!r}") from error
    degrees = [ir.l for _, ir in irreps]
    multiplicities = {mul for mul, _ in irreps}
    if degrees != list(range(len(degrees))) or len(multiplicities) != 1:
        raise TDNError(
            f"{name} is {irreps}, expected every degree 0..l_max once, in order, all with the same "
            "multiplicity, e.g. 64x0e+64x1o+64x2e; an e3nn Linear layer can bring it there"
        )
    expected = uniform_irreps(len(degrees) - 1, multiplicities.pop(), paths)
    if irreps != expected:
        hint = "natural parity" if paths == "parity" else "parity e, since it ignores inversion"
        raise TDNError(f"{name} is {irreps}, but paths={paths!r} needs {hint}: {expected}")
    return len(degrees) - 1, expected[0].mul


def to_components(flat: Tensor, irreps: o3.Irreps | str) -> Tensor:
    """e3nn's layout [..., sum C (2l + 1)] to ours [..., D, C]."""
    parts, start = [], 0
    for mul, ir in o3.Irreps(irreps):
        block = flat[..., start : start + mul * ir.dim]
        parts.append(block.unflatten(-1, (mul, ir.dim)).transpose(-1, -2))
        start += mul * ir.dim
    return torch.cat(parts, dim=-2)


def from_components(features: Tensor, irreps: o3.Irreps | str) -> Tensor:
    """Our layout [..., D, C] to e3nn's [..., sum C (2l + 1)]."""
    parts, start = [], 0
    for _, ir in o3.Irreps(irreps):
        parts.append(features[..., start : start + ir.dim, :].transpose(-1, -2).flatten(-2))
        start += ir.dim
    return torch.cat(parts, dim=-1)


def matrix_is_cheaper(components: tuple[int, int, int], rank: int, channels: int) -> bool:
    """Whether a product with one-channel features is cheaper by a matrix than in rank space.

    Both inputs go to rank space, are multiplied there and come back; or the second one turns the
    coupling tensor into a matrix, once for all channels, which is applied to the first.

    Parameters
    ----------
    components : D1, D2, D3 of the inputs and the output
    rank : R
    channels : of the first input
    """
    d1, d2, d3 = components
    by_rank = rank * d2 + channels * rank * (d1 + d3 + 1)
    by_matrix = d1 * d2 * d3 + channels * d1 * d3
    return by_matrix < by_rank


class CPTensorProduct(nn.Module):
    """Tensor product of two features through a CP decomposition of the coupling tensor.

    A replacement for ``e3nn.o3.TensorProduct``. Every degree of a feature has the same number of
    channels. In mode uvu with one channel in the second input, as harmonics have it, the product is
    a matrix per row, made once for all channels, where that is cheaper (`matrix_is_cheaper`).

    Parameters
    ----------
    irreps_in1, irreps_in2, irreps_out : Irreps or str
        For example ``"64x0e+64x1o+64x2e"``.
    mode : {"uvw", "uvu", "uvv", "uuw", "uuu"}
        How channels are connected (e3nn's names).
    paths : {"parity", "all"}
        Coupling paths, see :func:`tdn.cp.couplings.coupling_paths`.
    rank : int or str, optional
        CP rank, or a schedule of the paper (``"7L"``, ``"7L^2"``, ``"16log^2(L+1)"``,
        ``"16int(log^2(L+1))"``, ``"(L+1)^4"``; path coefficients fixed at 1 then). Default: the
        exact decomposition.
    shared_path_weights : bool
        One weight set for all coupling paths (the paper), or one per path.
    internal_weights : bool
        Whether the module owns its weights, shared over the batch; otherwise they are an argument
        of :meth:`forward`.
    exact : bool
        Use the dense coupling tensor instead of its CP form: a slow reference.
    layout : {"components", "e3nn"}
        Layout of inputs and output: ``[N, D, C]`` or e3nn's flat ``[N, irreps.dim]``.

    Attributes
    ----------
    weight_shape : tuple of int
        ``(P,)`` in front if path weights are not shared (P paths in the order of
        :func:`tdn.cp.couplings.coupling_paths`), then the mode's channel numbers, e.g. ``(C1, C2)``
        for uvu.
    weight_numel : int
        Number of weights, as e3nn calls it.

    Raises
    ------
    TDNError
        For irreps that do not have the uniform layout, channel numbers that do not fit the mode,
        and unknown modes, layouts or schedules.

    Examples
    --------
    >>> product = CPTensorProduct("8x0e+8x1o", "1x0e+1x1o", "8x0e+8x1o", mode="uvu")
    >>> x, y = torch.randn(5, 4, 8), torch.randn(5, 4, 1)
    >>> product(x, y, torch.randn(5, product.weight_numel)).shape
    torch.Size([5, 4, 8])
    """

    def __init__(
        self,
        irreps_in1: o3.Irreps | str,
        irreps_in2: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        mode: str = "uvu",
        *,
        paths: str = "parity",
        rank: int | str | None = None,
        shared_path_weights: bool = True,
        internal_weights: bool = False,
        exact: bool = False,
        layout: str = "components",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise TDNError(f"connection mode is {mode!r}, expected one of {', '.join(MODES)}")
        if layout not in LAYOUTS:
            raise TDNError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
        self.mode, self.paths, self.exact, self.layout = mode, paths, exact, layout
        self.shared_path_weights = shared_path_weights
        names = ("irreps_in1", "irreps_in2", "irreps_out")
        given = (irreps_in1, irreps_in2, irreps_out)
        parsed = [parse_irreps(i, paths, n) for i, n in zip(given, names, strict=True)]
        self.l_max_in1, self.l_max_in2, self.l_max_out = (l_max for l_max, _ in parsed)
        channels = [c for _, c in parsed]
        self.irreps_in1, self.irreps_in2, self.irreps_out = (o3.Irreps(i) for i in given)
        sizes: dict[str, int] = {}
        for index, count, name in zip(MODES[mode][:3], channels, names, strict=True):
            if sizes.setdefault(index, count) != count:
                raise TDNError(
                    f"{name} has {count} channels, but mode {mode!r} needs {sizes[index]} there: "
                    "channels with the same letter must agree"
                )
        self.coupling_paths = coupling_paths(self.l_max_in1, self.l_max_in2, self.l_max_out, paths)
        # Number of products that add up in each output channel, as in e3nn.
        fan_in = math.prod(sizes[i] for i in MODES[mode][3] if i != MODES[mode][2])
        self.channel_norm = 1.0 / math.sqrt(fan_in)
        shape = tuple(sizes[i] for i in MODES[mode][3])
        self.weight_shape = shape if shared_path_weights else (len(self.coupling_paths), *shape)
        self.weight_numel = math.prod(self.weight_shape)
        self._register_factors(rank)
        # harmonics, say, with a weight per channel of the result: see `matrix_is_cheaper`
        components = tuple(dimension(l_max) for l_max, _ in parsed)
        self.by_matrix = (
            mode == "uvu"
            and channels[1] == 1
            and shared_path_weights
            and not exact
            and matrix_is_cheaper(components, self.rank, channels[0])
        )
        self.weight = nn.Parameter(torch.randn(self.weight_shape)) if internal_weights else None

    def _register_factors(self, rank: int | str | None) -> None:
        """Store the CP factors, or the dense tensor of the same path coefficients, as buffers."""
        dtype = torch.get_default_dtype()
        degrees = (self.l_max_in1, self.l_max_in2, self.l_max_out)
        scheduled = isinstance(rank, str)
        self.factors: CPFactors = load_factors(
            degrees[0],
            self.paths,
            paper_rank(rank, max(degrees)) if scheduled else rank,
            l_max_input2=degrees[1],
            l_max_output=degrees[2],
            free_coefficients=not scheduled,
        )
        c = self.factors.path_coefficients
        if self.exact:
            dense = torch.from_numpy(coupling_tensor(self.coupling_paths, *degrees, c))
            self.register_buffer("coupling", dense.to(dtype))
        else:
            for name in ("input1", "input2", "output"):
                self.register_buffer(name, torch.from_numpy(getattr(self.factors, name)).to(dtype))
        # With its own weight, a path needs no coefficient.
        self.register_buffer("inverse_coefficients", torch.from_numpy(1.0 / c).to(dtype))

    @property
    def rank(self) -> int:
        """CP rank."""
        return self.factors.rank

    def _weights(self, weight: Tensor | None, batch: int) -> Tensor:
        """Weights [*weight_shape] or [N, *weight_shape]."""
        if self.weight is not None:
            if weight is not None:
                raise TDNError("weights were given to a product with internal_weights=True")
            return self.weight
        if weight is None:
            raise TDNError(
                f"weights are missing: give a tensor [N, {self.weight_numel}] or construct with "
                "internal_weights=True"
            )
        if tuple(weight.shape) in (self.weight_shape, (batch, *self.weight_shape)):
            return weight
        if tuple(weight.shape) == (self.weight_numel,):
            return weight.reshape(self.weight_shape)
        if tuple(weight.shape) == (batch, self.weight_numel):
            return weight.reshape(batch, *self.weight_shape)
        raise TDNError(
            f"weights have shape {tuple(weight.shape)}, expected {self.weight_shape} or "
            f"({batch}, {self.weight_numel})"
        )

    def _couple(
        self, x: Tensor, y: Tensor, w: Tensor, coupling: Tensor | tuple[Tensor, Tensor, Tensor]
    ) -> Tensor:
        """One bilinear coupling with its channel mode: [N, D1, C1], [N, D2, C2] -> [N, D3, C3]."""
        in1, in2, out, weights = MODES[self.mode]
        batch = "n" if w.dim() > len(weights) else ""
        if isinstance(coupling, Tensor):
            return torch.einsum(f"kij,ni{in1},nj{in2},{batch}{weights}->nk{out}", coupling, x, y, w)
        a, b, c = coupling
        u, v = a.t() @ x, b.t() @ y  # [N, R, C1], [N, R, C2]
        return c @ torch.einsum(f"nr{in1},nr{in2},{batch}{weights}->nr{out}", u, v, w)

    def _matrices(self, y: Tensor) -> Tensor:
        """The coupling contracted with the second input, [N, D2] -> [N, D3, D1]."""
        coupling = torch.einsum("kr,ir,jr->jki", self.output, self.input1, self.input2)
        return (y @ coupling.flatten(1)).unflatten(1, coupling.shape[1:])

    def _block(self, s1: slice, s2: slice, s3: slice) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Coupling of some components, dense or as factors."""
        if self.exact:
            return self.coupling[s3, s1, s2]
        return self.input1[s1], self.input2[s2], self.output[s3]

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Product of two features.

        Parameters
        ----------
        x : [N, D1, C1] (or e3nn's [N, irreps_in1.dim])
        y : [N, D2, C2] (or [N, irreps_in2.dim])
        weight : [weight_numel], [N, weight_numel], or the same unflattened, optional

        Returns
        -------
        Tensor
            [N, D3, C3] (or [N, irreps_out.dim]).
        """
        if self.layout == "e3nn":
            x, y = to_components(x, self.irreps_in1), to_components(y, self.irreps_in2)
        w = self._weights(weight, x.shape[0]) * self.channel_norm
        if self.by_matrix:
            z = torch.bmm(self._matrices(y.squeeze(2)), x) * w.squeeze(-1).unsqueeze(-2)
        elif self.shared_path_weights:
            everything = slice(None)
            z = self._couple(x, y, w, self._block(everything, everything, everything))
        else:
            z = self._couple_paths(x, y, w)
        return from_components(z, self.irreps_out) if self.layout == "e3nn" else z

    def _couple_paths(self, x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        """One weight set per path."""
        dim = w.dim() - len(self.weight_shape)
        blocks: list[Tensor | None] = [None] * (self.l_max_out + 1)
        for p, (l1, l2, l3) in enumerate(self.coupling_paths):
            s1, s2, s3 = degree_slice(l1), degree_slice(l2), degree_slice(l3)
            w_p = w.select(dim, p) * self.inverse_coefficients[p]
            z = self._couple(x[:, s1], y[:, s2], w_p, self._block(s1, s2, s3))
            blocks[l3] = z if blocks[l3] is None else blocks[l3] + z
        channels = self.irreps_out[0].mul
        return torch.cat(
            [
                x.new_zeros(x.shape[0], 2 * degree + 1, channels) if z is None else z
                for degree, z in enumerate(blocks)
            ],
            dim=1,
        )

    def extra_repr(self) -> str:
        """Summary for ``print``."""
        kind = "dense" if self.exact else f"rank {self.rank}"
        return (
            f"{self.irreps_in1} x {self.irreps_in2} -> {self.irreps_out}, mode={self.mode}, "
            f"paths={self.paths}, {kind}, {self.weight_numel} weights"
        )


class NaryTensorProduct(nn.Module):
    """Product of n features, channel by channel: (((x1 * x2) * x3) * ...).

    A chain of :class:`CPTensorProduct` in mode uuu with internal weights: the many-body products
    of MACE and ACE at the cost of n - 1 CP products.

    Parameters
    ----------
    irreps : Irreps or str
        Irreps of every factor and of the result.
    order : int
        Number of factors, at least 2.
    paths, rank, exact, layout
        As in :class:`CPTensorProduct`.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        order: int,
        *,
        paths: str = "parity",
        rank: int | str | None = None,
        exact: bool = False,
        layout: str = "components",
    ) -> None:
        super().__init__()
        if order < 2:
            raise TDNError(f"order of a product is {order}, expected at least 2")
        self.products = nn.ModuleList(
            CPTensorProduct(
                irreps,
                irreps,
                irreps,
                "uuu",
                paths=paths,
                rank=rank,
                internal_weights=True,
                exact=exact,
                layout=layout,
            )
            for _ in range(order - 1)
        )

    def forward(self, *features: Tensor) -> Tensor:
        """Multiply ``order`` features, each [N, D, C], to [N, D, C]."""
        if len(features) != len(self.products) + 1:
            raise TDNError(f"got {len(features)} features, expected {len(self.products) + 1}")
        result = features[0]
        for product, feature in zip(self.products, features[1:], strict=True):
            result = product(result, feature)
        return result
