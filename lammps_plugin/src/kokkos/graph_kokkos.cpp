/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): the graph of the model in the memory of
   KOKKOS.
------------------------------------------------------------------------- */

#include "kokkos/graph_kokkos.h"

#include "kokkos/views.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "comm.h"

#include <algorithm>

using namespace LAMMPS_NS;

template <class DeviceType>
typename GraphKokkos<DeviceType>::Numbers GraphKokkos<DeviceType>::there(const int *values,
                                                                         int count)
{
  return Kokkos::create_mirror_view_and_copy(Space(), HostNumbers(values, count));
}

/* ---------------------------------------------------------------------- */

template <class DeviceType>
void GraphKokkos<DeviceType>::set_model(double cutoff, const std::vector<int> &species_of_type,
                                        bool positions)
{
  EdgeGraph::set_model(cutoff, species_of_type, positions);
  this->species_of_type = Array<int>("tdn:species_of_type", species_of_type.size());
  Kokkos::deep_copy(this->species_of_type,
                    HostNumbers(species_of_type.data(), species_of_type.size()));
  sums = Array<StepSums>("tdn:sums", NUM_PARTS);
  sums_on_host = Kokkos::create_mirror_view(sums);
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> void GraphKokkos<DeviceType>::number_local(const Neighbors &neighbors)
{
  const Foreign<int> centers(neighbors.centers, neighbors.num_centers);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), centers);
  Neighbors on_host = neighbors;
  on_host.centers = host.data();
  EdgeGraph::number_local(on_host);
}

/* ---------------------------------------------------------------------- */

template <class DeviceType>
void GraphKokkos<DeviceType>::build_pairs(const Neighbors &neighbors,
                                          const std::vector<int64_t> &owners)
{
  if (!takes_positions) return EdgeGraph::build_pairs(neighbors, owners);

  count_build();
  const int num_rows = atom->nlocal + atom->nghost;
  nodes_.number_ghosts(owners, atom->nlocal, num_rows, comm->me);
  const int n = nodes_.num_local(), num_ghosts = nodes_.num_ghosts();
  const Numbers slots = there(nodes_.slots(), num_rows);
  const Neighbors list = neighbors;

  enlarge_view(first_pairs, n + 1);
  const Array<int64_t> begin = first_pairs;
  num_pairs = 0;
  if (n == 0) Kokkos::deep_copy(begin, 0);
  Kokkos::parallel_scan(
      "tdn:count_pairs", Kokkos::RangePolicy<DeviceType>(0, n),
      KOKKOS_LAMBDA(const int node, int64_t &sum, const bool last) {
        const int i = list.centers[node];
        if (last) begin(node) = sum;
        for (int jj = 0; jj < list.counts[i]; jj++)
          sum += slots(list.array[list.stride * i + list.column * jj] & NEIGHMASK) >= 0;
        if (last && node == n - 1) begin(n) = sum;
      },
      num_pairs);

  enlarge_view(pair_others, num_pairs);
  const Array<int> other = pair_others;
  const Array<int> used("tdn:used", num_ghosts);
  Kokkos::parallel_for(
      "tdn:fill_pairs", Kokkos::RangePolicy<DeviceType>(0, n), KOKKOS_LAMBDA(const int node) {
        const int i = list.centers[node];
        int64_t pair = begin(node);
        for (int jj = 0; jj < list.counts[i]; jj++) {
          const int j = list.array[list.stride * i + list.column * jj] & NEIGHMASK;
          if (slots(j) < 0) continue;
          if (slots(j) >= n) Kokkos::atomic_store(&used(slots(j) - n), 1);
          other(pair++) = j;
        }
      });

  const auto used_host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), used);
  nodes_.clear_used();
  for (int ghost = 0; ghost < num_ghosts; ghost++)
    if (used_host(ghost)) nodes_.use(n + ghost);
  nodes_.place_used();

  const int num_all = nodes_.num_all();
  const bool exchanged = comm->nprocs > 1;
  const Numbers places = there(nodes_.places(), num_ghosts);
  const Numbers ghosts = there(nodes_.ghosts(), num_ghosts);
  enlarge_view(node_of_row, num_rows);
  enlarge_view(row_of_atom, exchanged ? num_rows : 0);
  enlarge_view(row_of_ghost, exchanged ? num_rows : 0);
  const Array<int> node_of = node_of_row, row_of = row_of_atom, row_there = row_of_ghost;
  Kokkos::parallel_for(
      "tdn:nodes", Kokkos::RangePolicy<DeviceType>(0, num_rows), KOKKOS_LAMBDA(const int i) {
        const int slot = slots(i);
        const int row = slot < n ? slot : places(slot - n);
        node_of(i) = row < num_all ? row : -1;
        if (!exchanged) return;
        row_of(i) = row;
        row_there(i) = slot >= n && ghosts(slot - n) == i ? row : -1;
      });
  atom_of_node = there(nodes_.atoms(), num_all);
  enlarge_view(node_species, num_all);
  read_nodes(0, 0, atom->nlocal, sums_of(LOCAL));
  Kokkos::deep_copy(sums_on_host, sums);    // waits: arrays of the host are read until then
  num_mapped = sums_on_host(LOCAL).mapped;
}

/* ----------------------------------------------------------------------
   species of nodes from the types of their atoms; those that were others, and that are none; and how
   many of the first atoms have one
------------------------------------------------------------------------- */

template <class DeviceType>
void GraphKokkos<DeviceType>::read_nodes(int first, int last, int num_atoms,
                                         const Kokkos::View<StepSums, DeviceType> &out)
{
  const auto type = atomKK->k_type.template view<DeviceType>();
  const Array<int> mapping = species_of_type;
  const Numbers atoms = atom_of_node;
  const Array<int64_t> species = node_species;
  const int num_nodes = last - first;
  reduce(
      "tdn:species", std::max(num_nodes, num_atoms),
      KOKKOS_LAMBDA(const int k, StepSums &sum) {
        if (k < num_atoms) sum.mapped += mapping(type(k)) >= 0;
        if (k >= num_nodes) return;
        const int node = first + k;
        const int64_t found = mapping(type(atoms(node)));
        sum.changed += found != species(node);
        sum.unknown += found < 0;
        species(node) = found < 0 ? 0 : found;    // the model may run before it is looked at
      },
      out);
}

/* ----------------------------------------------------------------------
   on the CPU results are there at once; a GPU is waited for only where they are needed
------------------------------------------------------------------------- */

template <class DeviceType> bool GraphKokkos<DeviceType>::read_species(bool needed)
{
  if (!takes_positions) return EdgeGraph::read_species(needed);
  read_nodes(0, nodes_.num_local(), atom->nlocal, sums_of(LOCAL));
  return needed || ON_HOST ? check_species() : false;
}

template <class DeviceType> void GraphKokkos<DeviceType>::update()
{
  if (!takes_positions) return EdgeGraph::update();
  atomKK->sync(ExecutionSpaceFromDevice<DeviceType>::space, TYPE_MASK);
  read_nodes(nodes_.num_local(), nodes_.num_all(), 0, sums_of(GHOSTS));
  if (ON_HOST) check_species();
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> bool GraphKokkos<DeviceType>::check_species()
{
  Kokkos::deep_copy(sums_on_host, sums);
  if (sums_on_host(LOCAL).unknown + sums_on_host(GHOSTS).unknown > 0.0) {
    atomKK->sync(Host, TYPE_MASK | TAG_MASK);
    for (int node = 0; node < nodes_.num_all(); node++) species_of(node);    // throws
  }
  if (sums_on_host(LOCAL).mapped != num_mapped) throw_joined();
  return sums_on_host(LOCAL).changed > 0.0;
}

template <class DeviceType> StepSums GraphKokkos<DeviceType>::wait_for_results()
{
  check_species();
  return sums_on_host(RESULTS);
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> tdn::Graph GraphKokkos<DeviceType>::view() const
{
  if (!takes_positions) return EdgeGraph::view();
  return {nullptr, nodes_.num_all(), nodes_.num_local(), nullptr, nullptr, 0};
}

template <class DeviceType> tdn::Pairs GraphKokkos<DeviceType>::pairs() const
{
  return {atomKK->k_x.template view<DeviceType>().data(),
          atom->nlocal + atom->nghost,
          atom_of_node.data(),
          first_pairs.data(),
          pair_others.data(),
          node_of_row.data(),
          node_species.data(),
          nodes_.num_local(),
          nodes_.num_all(),
          build,
          num_pairs,
          !ON_HOST};
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> EdgeGraph::Closest GraphKokkos<DeviceType>::closest()
{
  if (takes_positions) {
    const auto begin = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), first_pairs);
    const auto other = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), pair_others);
    pairs_begin.assign(begin.data(), begin.data() + nodes_.num_local() + 1);
    pair_atom.assign(other.data(), other.data() + num_pairs);
    atomKK->sync(Host, X_MASK | TAG_MASK);
  }
  return EdgeGraph::closest();
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> double GraphKokkos<DeviceType>::memory_usage() const
{
  return EdgeGraph::memory_usage() + bytes_of_view(first_pairs) + bytes_of_view(pair_others) +
      bytes_of_view(node_of_row) + bytes_of_view(atom_of_node) + bytes_of_view(node_species) +
      bytes_of_view(row_of_atom) + bytes_of_view(row_of_ghost);
}

/* ---------------------------------------------------------------------- */

namespace LAMMPS_NS {
template class GraphKokkos<LMPDeviceType>;
#ifdef LMP_KOKKOS_GPU
template class GraphKokkos<LMPHostType>;
#endif
}    // namespace LAMMPS_NS
