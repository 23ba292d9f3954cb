"""Files for metatomic, through which other programs run networks (`--backend metatomic`).

The file holds the network itself, whose energies the program differentiates by positions and cells.
Needs the package ``metatomic-torch``. Annotations are not postponed: metatomic reads them.
"""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    load_atomistic_model,
)
from torch import Tensor, nn

from tdn.graph import Graph
from tdn.inference.torchscript import quiet
from tdn.network.base import Network
from tdn.network.potential import assemble
from tdn.ops import sort_edges

NAMES_OF_PAIRS = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]


class MetatomicModel(nn.Module):
    """A network with the interface of metatomic: systems with their neighbors in, energies out.

    Parameters
    ----------
    network : in inference mode, with forces that are gradients of the energy
    """

    _species_of: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        numbers = torch.tensor(network.atomic_numbers)
        species_of = torch.full([int(numbers.max()) + 1], -1)
        species_of[numbers] = torch.arange(len(numbers))
        self.register_buffer("_species_of", species_of)
        self._pairs = NeighborListOptions(cutoff=network.r_max, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        """Every pair within the cutoff, from both of its ends."""
        return [self._pairs]

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        """Energies of atoms or of systems in eV, as a program asks for them.

        Parameters
        ----------
        systems : atoms and pairs, angstrom, float64
        outputs : may ask for ``energy``, per atom or per system
        selected_atoms : those whose energies are wanted or summed; all of them if None
        """
        types: List[Tensor] = []
        pairs: List[Tensor] = []
        vectors: List[Tensor] = []
        atoms: List[Tensor] = []
        first: List[int] = []
        count = 0
        for index, system in enumerate(systems):
            found = system.get_neighbor_list(self._pairs)
            types.append(system.types)
            pairs.append(found.samples.values[:, :2].to(torch.int64) + count)
            vectors.append(found.values.squeeze(2))
            numbers = torch.arange(len(system), device=system.types.device)
            atoms.append(torch.stack([torch.full_like(numbers, index), numbers], dim=1))
            first.append(count)
            count += len(system)
        edge_index = torch.cat(pairs).t()
        order = torch.argsort(edge_index[0], stable=True)
        edges = sort_edges(edge_index[:, order], count, count)
        species = self._species_of[torch.cat(types).to(torch.int64)]
        edge_vec = torch.cat(vectors)[order].to(torch.float64)
        energy = self.network(species, edges, edge_vec, count)

        samples = torch.cat(atoms)
        if selected_atoms is not None:
            samples = selected_atoms.values.to(torch.int64)
            starts = torch.tensor(first, device=samples.device)
            energy = energy[starts[samples[:, 0]] + samples[:, 1]]
        results: Dict[str, TensorMap] = {}
        if "energy" in outputs:
            names = ["system", "atom"]
            if outputs["energy"].sample_kind == "system":
                owner = samples[:, 0]
                total = energy.new_zeros(len(systems)).index_add(0, owner, energy)
                samples = torch.arange(len(systems), device=owner.device).unsqueeze(1)
                if selected_atoms is not None:  # systems of which none is selected are left out
                    samples = torch.unique(owner).unsqueeze(1)
                energy = total[samples[:, 0]]
                names = ["system"]
            zero = torch.zeros([1, 1], dtype=torch.int32, device=samples.device)
            block = TensorBlock(
                values=energy.unsqueeze(1),
                samples=Labels(names, samples.to(torch.int32)),
                components=torch.jit.annotate(List[Labels], []),
                properties=Labels(["energy"], zero),
            )
            results["energy"] = TensorMap(Labels(["_"], zero), [block])
        return results


def save(network: Network, metadata: dict[str, Any], path: Path) -> None:
    """Write a file for metatomic.

    Parameters
    ----------
    network : as it is deployed
    metadata : of the compiled file, from `.description`; stored with it
    path : the file
    """
    described = ModelMetadata(
        name="TDN",
        description="Tensor Decomposition Network for " + " ".join(metadata["species"]),
        references={"architecture": ["https://arxiv.org/abs/2507.01131"]},
        extra={"tdn": json.dumps(metadata)},
    )
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="atom")},
        atomic_types=network.atomic_numbers,
        interaction_range=metadata["receptive_field"],
        length_unit="angstrom",
        supported_devices=["cpu", "cuda"],
        dtype="float64",  # of positions and energies, whatever the network computes in
    )
    model = MetatomicModel(network.requires_grad_(False)).eval()
    with quiet():
        AtomisticModel(model, described, capabilities).save(path)


class LoadedModel:
    """A file for metatomic as `.verify` evaluates compiled files: read by metatomic itself.

    Parameters
    ----------
    path : the file
    metadata : what `save` stored
    device : where it is evaluated
    """

    direct_forces = False
    takes_positions = False
    num_members = 1

    def __init__(self, path: Path, metadata: dict[str, Any], device: torch.device) -> None:
        with quiet():
            self.model = load_atomistic_model(path).to(device)
        self.metadata = metadata
        self.device = device
        self.r_max: float = metadata["r_max"]
        self.atomic_numbers: list[int] = metadata["atomic_numbers"]

    def __call__(self, graph: Graph) -> dict[str, Tensor]:
        """Energies, forces and virials; see `tdn.network.potential.assemble`."""
        found = self.evaluate_edges(
            graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        )
        return assemble(*found, graph.edge_index, graph.edge_vec, graph.batch, graph.num_graphs)

    def evaluate_edges(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Energies of atoms and their gradient by edge vectors, all atoms as one system."""
        numbers = torch.tensor(self.atomic_numbers, device=self.device)
        nothing = torch.zeros(num_local, 3, dtype=torch.float64, device=self.device)
        system = System(
            types=numbers[species].to(torch.int32),
            positions=nothing,  # only vectors between atoms count
            cell=nothing.new_zeros(3, 3),
            pbc=torch.zeros(3, dtype=torch.bool, device=self.device),
        )
        leaf = edge_vec.detach().clone().requires_grad_(True)
        shift = torch.arange(len(leaf), device=self.device)  # pairs may meet several images
        samples = torch.stack([*edge_index, shift, 0 * shift, 0 * shift], dim=1)
        axes = torch.arange(3, dtype=torch.int32, device=self.device).unsqueeze(1)
        block = TensorBlock(
            values=leaf.unsqueeze(2),
            samples=Labels(NAMES_OF_PAIRS, samples.to(torch.int32)),
            components=[Labels(["xyz"], axes)],
            properties=Labels(["distance"], axes[:1]),
        )
        (pairs,) = self.model.requested_neighbor_lists()
        system.add_neighbor_list(pairs, block)
        options = ModelEvaluationOptions(
            length_unit="angstrom",
            outputs={"energy": ModelOutput(unit="eV", sample_kind="atom")},
        )
        found = self.model([system], options, check_consistency=True)
        energy = found["energy"].block().values[:, 0]
        gradient = torch.autograd.grad(energy.sum(), leaf, allow_unused=True)[0]
        return energy.detach(), torch.zeros_like(edge_vec) if gradient is None else gradient
