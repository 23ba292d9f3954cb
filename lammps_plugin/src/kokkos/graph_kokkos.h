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

#include <type_traits>
#include <utility>

namespace LAMMPS_NS {

/// Sums over atoms or nodes that are made where these are, and looked at once in a step.
struct StepSums {
  double changed = 0.0, unknown = 0.0, mapped = 0.0;    // species: others than before, none, some
  double energy = 0.0, force = 0.0;

  KOKKOS_INLINE_FUNCTION void operator+=(const StepSums &other)
  {
    changed += other.changed;
    unknown += other.unknown;
    mapped += other.mapped;
    energy += other.energy;
    force += other.force;
  }
};

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

  static constexpr bool ON_HOST = std::is_same_v<Space, Kokkos::HostSpace>;

  explicit GraphKokkos(LAMMPS *lmp) : EdgeGraph(lmp) {}

  void set_model(double cutoff, const std::vector<int> &species_of_type, bool positions) override;
  void number_local(const Neighbors &neighbors) override;
  void build_pairs(const Neighbors &neighbors, const std::vector<int64_t> &owners) override;
  bool read_species(bool needed) override;
  void update() override;
  tdn::Graph view() const override;
  tdn::Pairs pairs() const override;
  Closest closest() override;
  double memory_usage() const override;

  /// Of each node.
  const Array<int64_t> &species() const { return node_species; }
  const Numbers &atoms() const { return atom_of_node; }

  /** Of each atom and image: the row of its node among those that ranks exchange, the rows of idle
      ghosts included; -1 for none. And the same of images that stand for an atom of another rank,
      -1 for others. Only on several ranks, and for models that take positions. */
  const Array<int> &rows() const { return row_of_atom; }
  const Array<int> &ghost_rows() const { return row_of_ghost; }
  bool has_rows() const { return takes_positions; }

  /// Where the sums of results go, and these sums when all kernels of the step have ended.
  Kokkos::View<StepSums, DeviceType> result_sums() const { return sums_of(RESULTS); }
  StepSums wait_for_results();

  /// Sums of function(item, sum) over items. On the CPU few items are not worth waking threads for.
  template <class Function>
  static void reduce(const char *name, int count, const Function &function,
                     const Kokkos::View<StepSums, DeviceType> &out)
  {
    constexpr int few = 4096;
    if constexpr (ON_HOST) {
      if (count <= few) {
        StepSums sum;
        for (int item = 0; item < count; item++) function(item, sum);
        out() = sum;
        return;
      }
    }
    Kokkos::parallel_reduce(name, Kokkos::RangePolicy<DeviceType>(0, count), function, out);
  }

  // functions with kernels must be public for nvcc
  void read_nodes(int first, int last, int num_atoms,
                  const Kokkos::View<StepSums, DeviceType> &out);

 private:
  Array<int> species_of_type;    // -1 for none
  Array<int64_t> first_pairs, node_species;
  Array<int> pair_others, node_of_row;
  Array<int> row_of_atom, row_of_ghost;
  Numbers atom_of_node;
  int64_t num_pairs = 0;
  double num_mapped = 0.0;

  enum Part { LOCAL, GHOSTS, RESULTS, NUM_PARTS };
  Array<StepSums> sums;
  decltype(Kokkos::create_mirror_view(std::declval<Array<StepSums>>())) sums_on_host;

  Kokkos::View<StepSums, DeviceType> sums_of(Part part) const
  {
    return Kokkos::subview(sums, static_cast<int>(part));
  }
  bool check_species();
  static Numbers there(const int *values, int count);
};

}    // namespace LAMMPS_NS

#endif
