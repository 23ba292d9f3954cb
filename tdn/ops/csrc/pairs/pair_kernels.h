// Kernels of the layers that start from positions: plain pointers, compiled once per instruction
// set. Nothing that is shared may be included here (see cp_message_kernels.h).
//
// A list of pairs has both directions of every pair of atoms. Node i reads, in one walk over its
// pairs, the features of its neighbors, or the gradients of the messages that they receive; what it
// adds up is its own. The force of a pair acts on both ends: every thread has sums of its own.

#ifndef TDN_PAIR_KERNELS_H
#define TDN_PAIR_KERNELS_H

#include "convolution/convolution_kernels.h"

namespace tdn {

// Pairs of the nodes [0, centers), whose other atoms may be images or atoms of other processes.
// Pairs beyond the cutoff, and with rows that are no nodes, count for nothing.
template <typename T> struct PairList {
  const double *positions;    // [rows, 3]
  const int32_t *center;      // [centers] row of each center
  const int64_t *ptr;         // [centers + 1] pairs of center i: ptr[i]..ptr[i + 1]
  const int32_t *other;       // [pairs] row of the other atom
  const int32_t *node;        // [rows] node of each row, -1 for none; ghosts follow the centers
  const int64_t *species;     // [nodes]
  int64_t num_centers, num_nodes;
  RadialTable<T> table;
};

// Sums of one thread over the edges that it has seen. With E_ij = energy by the edge from center i
// to neighbor j, g = dE_ij / d(r_j - r_i): force[i] += g, force[j] -= g, virials -(r_j - r_i) (x) g.
struct PairSums {
  double *force;          // [centers, 3]
  double *virial;         // [9] of the edges whose neighbor is a center here: each is seen once
  double *atom_virial;    // [centers, 9] half of an edge to each of its ends; may be null
  double *centroid;       // [centers, 9] all of an edge to its neighbor; null like the former
};

template <typename T> struct PairArguments {
  int64_t l_max, rank, channels, blocks, rows_out;
  PairList<T> pairs;
  const T *harmonics;    // [D, padded row] factors of the spherical harmonics; density: null
  const T *output;       // [rows_out, rank] from ranks to components; adjoint: input1 of features
  // blocked, [nodes][blocks][rank][width]: features of the nodes, gradients of their messages;
  // density: gradients by component in the place of ranks
  const T *u, *g;
  T *out;                // [n, rows_out, C] of the nodes that are worked on: messages, or gradients
  PairSums sums;         // adjoints
};

// Each works on the nodes [begin, end); `scratch` has as many elements as `scratch_size` says.
// density_adjoint reads the gradients of the nodes [begin, end) alone, from `g` on; density_ghosts
// adds the edges from ghosts, of which `g` has the gradients, from the first ghost on.
template <typename T> struct PairKernels {
  ScratchSize scratch_size;    // rank = number of components for the densities
  void (*convolution)(const PairArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*convolution_adjoint)(const PairArguments<T> &, T *scratch, int64_t begin, int64_t end);
};

template <typename T> struct PairDensityKernels {
  void (*density)(const PairArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*density_adjoint)(const PairArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*density_ghosts)(const PairArguments<T> &, T *scratch, int64_t begin, int64_t end);
};

struct PairTable {
  PairKernels<float> float32;
  PairKernels<double> float64;
};

struct PairDensityTable {
  PairDensityKernels<float> float32;
  PairDensityKernels<double> float64;
};

// The tables for this processor.
const PairTable &pair_table();
const PairDensityTable &pair_density_table();

}    // namespace tdn

#endif
