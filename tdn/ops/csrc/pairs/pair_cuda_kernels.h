// Kernels of the pair list on a GPU: plain pointers to its memory, no PyTorch.
//
// A center reads both directions of its pairs: the features of its neighbors, and the gradients of
// the messages that they receive. What it adds up is its own, forces and virials included: no
// atomics, nothing of the size of the pairs, the same bits every time.

#ifndef TDN_CUDA_PAIR_KERNELS_H
#define TDN_CUDA_PAIR_KERNELS_H

#include "pair_kernels.h"
#include "common/queue.h"

namespace tdn::cuda {

// Sums of each center over its pairs, to which is added. With d = r_j - r_i and the energies
// E_ij + E_ji of both edges of a pair: force += dE/dd, virial -= d (x) dE/dd / 2. Over all centers
// that is the virial of the system, and half of every edge at each of its ends.
struct CenterSums {
  double *force;       // [centers, 3]
  double *virial;      // [centers, 9]
  double *centroid;    // [centers, 9] all of an edge at its neighbor; may be null
};

template <typename T> struct PairWalk {
  int64_t l_max, rank, channels;
  PairList<T> pairs;
  int64_t num_rows, num_pairs;
  int64_t first, count;    // the centers [first, first + count)
  const T *harmonics;      // [(l_max + 1)^2, rank]; null: one rank for each component
  const T *u;              // [nodes, rank, channels]; null: ones
  const T *g;              // adjoint: gradient of the messages [nodes, rank, channels]
  T *out;                  // [count, rank, channels] forward: sums; adjoint: gradient of u, or null
  // adjoint: which edges; from the center to all, and to the center from these nodes
  bool outgoing;
  int64_t incoming_begin, incoming_end;
  CenterSums sums;
};

// out[n, r, c] = sum_k matrix[k step_k + r step_r] x[n, k, c]
template <typename T> struct PairProjection {
  int64_t count, rows_in, rows_out, channels, step_in, step_out;
  const T *x, *matrix;
  T *out;
};

// The repulsion of nuclei, see tdn/network/zbl.py.
struct PairRepulsion {
  PairList<double> pairs;
  int64_t num_rows, num_pairs, num_species;
  const double *number, *cutoff;    // [S], [S, S]
  double *energy;                   // [centers]
  CenterSums sums;
};

// Each enqueues its work and returns a cudaError_t.
template <typename T> int launch_pairs(const PairWalk<T> &walk, const Queue &queue);
template <typename T> int launch_pairs_adjoint(const PairWalk<T> &walk, const Queue &queue);
// Kernels of their own for the usual sizes of a first layer, whose neighbors are known by species.
bool density_fits(const PairWalk<float> &walk);
int launch_density(const PairWalk<float> &walk, bool adjoint, const Queue &queue);
template <typename T> int launch_projection(const PairProjection<T> &a, const Queue &queue);
int launch_repulsion(const PairRepulsion &a, const Queue &queue);

}    // namespace tdn::cuda

#endif
