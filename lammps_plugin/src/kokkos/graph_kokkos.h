/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn/kk for LAMMPS (https://www.lammps.org/): the graph of the model in the memory of
   KOKKOS.

   Pairs, species and what belongs to them are made where the list of KOKKOS is, by its threads or
   on its GPU. Only the numbers of nodes are given on the host, at builds of the list. A model that
   takes edges has the graph of the plain style.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_GRAPH_KOKKOS_H
#define LMP_TDN_GRAPH_KOKKOS_H

#include "pair/edge_graph.h"

#include "kokkos_type.h"

#include <utility>

namespace LAMMPS_NS {

template <class DeviceType> class GraphKokkos : public EdgeGraph {
 public:
  using Space = typename DeviceType::memory_space;
  template <typename T> using Array = Kokkos::View<T *, DeviceType>;
  template <typename T>
  using Foreign = Kokkos::View<const T *, DeviceType, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

  /// Numbers of the host where the kernels read them; a copy only if that is on a GPU.
  using HostNumbers =
      Kokkos::View<const int *, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  using Numbers = decltype(Kokkos::create_mirror_view_and_copy(std::declval<Space>(),
                                                               std::declval<HostNumbers>()));

  explicit GraphKokkos(LAMMPS *lmp) : EdgeGraph(lmp) {}

  void set_model(double cutoff, const std::vector<int> &species_of_type, bool positions) override;
  void number_local(const Neighbors &neighbors) override;
  void build_pairs(const Neighbors &neighbors, const std::vector<int64_t> &owners) override;
  bool read_species() override;
  void update() override;
  tdn::Graph view() const override;
  tdn::Pairs pairs() const override;
  Closest closest() override;
  double memory_usage() const override;

  /// Of each node.
  const Array<int64_t> &species() const { return node_species; }
  const Numbers &atoms() const { return atom_of_node; }

  // functions with kernels must be public for nvcc
  bool read_nodes(int first, int last);
  int count_mapped() const;

 private:
  Array<int> species_of_type;    // -1 for none
  Array<int64_t> first_pairs, node_species;
  Array<int> pair_others, node_of_row;
  Numbers atom_of_node;
  int64_t num_pairs = 0;
  int num_mapped = 0;

  static Numbers there(const int *values, int count);
};

}    // namespace LAMMPS_NS

#endif
