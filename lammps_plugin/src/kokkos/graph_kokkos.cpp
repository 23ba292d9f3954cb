/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): the graph of the model in the memory of
   KOKKOS.
------------------------------------------------------------------------- */

#include "kokkos/graph_kokkos.h"

#include "atom_kokkos.h"
#include "atom_masks.h"
#include "comm.h"

#include <algorithm>

using namespace LAMMPS_NS;

namespace {

/// As `enlarge` of vectors: the old values are lost.
template <class View> void enlarge_view(View &view, int64_t count)
{
  const auto needed = static_cast<size_t>(std::max<int64_t>(count, 1));
  if (view.extent(0) >= needed) return;
  view = View();
  view = View(Kokkos::view_alloc(Kokkos::WithoutInitializing, "tdn"), needed + needed / 10);
}

template <class View> double bytes_of_view(const View &view)
{
  return static_cast<double>(view.span()) * sizeof(typename View::value_type);
}

}    // namespace

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
  const Numbers places = there(nodes_.places(), num_ghosts);
  enlarge_view(node_of_row, num_rows);
  const Array<int> rows = node_of_row;
  Kokkos::parallel_for(
      "tdn:nodes", Kokkos::RangePolicy<DeviceType>(0, num_rows), KOKKOS_LAMBDA(const int i) {
        const int slot = slots(i);
        const int node = slot < n ? slot : places(slot - n);
        rows(i) = node < num_all ? node : -1;
      });
  atom_of_node = there(nodes_.atoms(), num_all);
  enlarge_view(node_species, num_all);
  num_mapped = count_mapped();
  Kokkos::fence();    // the arrays of the host must stay until all have read them
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> int GraphKokkos<DeviceType>::count_mapped() const
{
  const auto type = atomKK->k_type.template view<DeviceType>();
  const Array<int> mapping = species_of_type;
  int mapped = 0;
  Kokkos::parallel_reduce(
      "tdn:count_atoms", Kokkos::RangePolicy<DeviceType>(0, atom->nlocal),
      KOKKOS_LAMBDA(const int i, int &sum) { sum += mapping(type(i)) >= 0; }, mapped);
  return mapped;
}

/* ----------------------------------------------------------------------
   species of nodes from the types of their atoms; whether one was another before
------------------------------------------------------------------------- */

template <class DeviceType> bool GraphKokkos<DeviceType>::read_nodes(int first, int last)
{
  const auto type = atomKK->k_type.template view<DeviceType>();
  const Array<int> mapping = species_of_type;
  const Numbers atoms = atom_of_node;
  const Array<int64_t> species = node_species;
  int changed = 0, unknown = 0;
  Kokkos::parallel_reduce(
      "tdn:species", Kokkos::RangePolicy<DeviceType>(first, last),
      KOKKOS_LAMBDA(const int node, int &sum_changed, int &sum_unknown) {
        const int64_t found = mapping(type(atoms(node)));
        sum_changed += found != species(node);
        sum_unknown += found < 0;
        species(node) = found;
      },
      changed, unknown);
  if (unknown) {
    atomKK->sync(Host, TYPE_MASK | TAG_MASK);
    for (int node = first; node < last; node++) species_of(node);    // throws
  }
  return changed > 0;
}

/* ---------------------------------------------------------------------- */

template <class DeviceType> bool GraphKokkos<DeviceType>::read_species()
{
  if (!takes_positions) return EdgeGraph::read_species();
  const bool changed = read_nodes(0, nodes_.num_local());
  if (count_mapped() != num_mapped) throw_joined();
  return changed;
}

template <class DeviceType> void GraphKokkos<DeviceType>::update()
{
  if (!takes_positions) return EdgeGraph::update();
  atomKK->sync(ExecutionSpaceFromDevice<DeviceType>::space, TYPE_MASK);
  read_nodes(nodes_.num_local(), nodes_.num_all());
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
          !std::is_same_v<Space, Kokkos::HostSpace>};
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
      bytes_of_view(node_of_row) + bytes_of_view(atom_of_node) + bytes_of_view(node_species);
}

/* ---------------------------------------------------------------------- */

namespace LAMMPS_NS {
template class GraphKokkos<LMPDeviceType>;
#ifdef LMP_KOKKOS_GPU
template class GraphKokkos<LMPHostType>;
#endif
}    // namespace LAMMPS_NS
