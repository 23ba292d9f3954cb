// A batch of pairs from positions, and where their forces go, for the kernels of the pair list.
// Included by files that are compiled once per instruction set; everything is internal to them.

#ifndef TDN_PAIR_BATCH_H
#define TDN_PAIR_BATCH_H

#include "convolution/edge_batch.h"
#include "pair_kernels.h"

namespace tdn {
namespace {

// Which edges of the pairs of node i: to the neighbor i from all that are nodes; from the center i
// to all or to ghosts; to the neighbor i from ghosts.
enum class Take { incoming, outgoing, outgoing_to_ghosts, incoming_from_ghosts };

template <typename T> struct PairBatch : EdgeBatch<T> {
  alignas(64) double vec[3][batch_size];    // from center to neighbor
};

template <Take take> constexpr bool is_incoming =
    take == Take::incoming || take == Take::incoming_from_ghosts;

// Take the next edges of node `i`, from pair `k` on; `batch.node` is the other end. Without
// branches: which pairs are within the cutoff nobody can guess.
template <typename T, Take take>
TDN_INLINE int64_t fill(PairBatch<T> &batch, const PairList<T> &pairs, const TableIndex<T> &index,
                        int64_t i, int64_t k)
{
  constexpr bool ghosts = take == Take::outgoing_to_ghosts || take == Take::incoming_from_ghosts;
  constexpr double sign = is_incoming<take> ? -1.0 : 1.0;
  const RadialTable<T> &table = index.table;
  const double r_max2 = table.r_max * table.r_max;
  const double *const at = pairs.positions + 3 * static_cast<int64_t>(pairs.center[i]);
  const double x = at[0], y = at[1], z = at[2];
  const int64_t species = pairs.species[i], num_species = table.num_species;
  const int64_t least = ghosts ? pairs.num_centers : 0;
  alignas(64) double square[batch_size];
  alignas(64) int64_t first[batch_size];    // interval of the pair of species in the table
  int count = 0;
  for (const int64_t end = pairs.ptr[i + 1]; k < end && count < batch_size; ++k) {
    const int64_t row = pairs.other[k], node = pairs.node[row];
    const double *const to = pairs.positions + 3 * row;
    const double v[3] = {sign * (to[0] - x), sign * (to[1] - y), sign * (to[2] - z)};
    const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    const int64_t other = pairs.species[node < 0 ? 0 : node];
    for (int d = 0; d < 3; ++d) batch.vec[d][count] = v[d];
    square[count] = r2;
    first[count] = (is_incoming<take> ? other * num_species + species
                                      : species * num_species + other) * table.intervals;
    batch.node[count] = node;
    count += !(r2 >= r_max2) & (node >= least);    // not a number goes on into the result
  }
  // the rest of the arrays is computed, but never used
  for (int e = count; e < batch_size; ++e) {
    for (int d = 0; d < 3; ++d) batch.vec[d][e] = d == 2;
    square[e] = 1;
    first[e] = 0;
  }
  batch.count = count;

  const double last = static_cast<double>(table.intervals - 1);
  for (int e = 0; e < batch_size; ++e) {
    const double r = __builtin_sqrt(square[e]), inverse = 1 / r;
    const double inverse_sum = 1 / (r + index.offset), along = index.scale * r * inverse_sum;
    double interval = along > 0 ? along : 0;    // not a number leads to the first interval
    interval = interval < last ? interval : last;
    const int64_t number = static_cast<int64_t>(interval);
    for (int d = 0; d < 3; ++d) batch.n[d][e] = static_cast<T>(batch.vec[d][e] * inverse);
    batch.inverse_r[e] = static_cast<T>(inverse);
    batch.s[e] = static_cast<T>(2 * (along - static_cast<double>(number)) - 1);
    batch.slope[e] = static_cast<T>(2 * index.scale * index.offset * inverse_sum * inverse_sum);
    first[e] = (first[e] + number) * index.row;
  }
  for (int e = 0; e < batch_size; ++e) batch.row[e] = table.values + first[e];
  return k;
}

// Forces and virials of one edge of node `i`; those on ghosts are found where these are centers.
template <typename T, Take take>
TDN_INLINE void add_edge(const PairSums &sums, const PairBatch<T> &batch, int e, const T *along,
                         int64_t i, int64_t num_centers)
{
  double g[3];
  edge_gradient(batch, e, along, g);
  const int64_t j = batch.node[e];
  const bool local = j < num_centers;
  const int64_t center = is_incoming<take> ? j : i, neighbor = is_incoming<take> ? i : j;
  const bool has_center = !is_incoming<take> || local, has_neighbor = is_incoming<take> || local;
  if (has_center)
    for (int d = 0; d < 3; ++d) sums.force[3 * center + d] += g[d];
  if (has_neighbor)
    for (int d = 0; d < 3; ++d) sums.force[3 * neighbor + d] -= g[d];
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) {
      const double v = -batch.vec[a][e] * g[b];
      if (has_neighbor) sums.virial[3 * a + b] += v;
      if (!sums.atom_virial) continue;
      if (has_center) sums.atom_virial[9 * center + 3 * a + b] += 0.5 * v;
      if (has_neighbor) sums.atom_virial[9 * neighbor + 3 * a + b] += 0.5 * v;
      if (has_neighbor) sums.centroid[9 * neighbor + 3 * a + b] += v;
    }
}

}    // namespace
}    // namespace tdn

#endif
