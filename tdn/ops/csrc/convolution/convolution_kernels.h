// Kernels of the convolutions for inference: plain pointers, compiled once per instruction set.
// Nothing that is shared may be included here (see cp_message_kernels.h).
//
// Features in rank space are stored in blocks of as many channels as a vector holds:
// [nodes][blocks][rank][width], rank and channels padded with zeros.

#ifndef TDN_CONVOLUTION_KERNELS_H
#define TDN_CONVOLUTION_KERNELS_H

#include "common/legendre.h"

#include <cstdint>

namespace tdn {

// Channels that stand together in a radial table, a multiple of every vector width.
constexpr int64_t table_block = 16;

// Radial weights of all pairs of species as polynomials of order `order`: values [S, S, intervals,
// table blocks, degrees, order + 1, 16], lowest power first. With y = r / r_max, the variable
// x = intervals (1 + stretch) y / (y + stretch) counts intervals, which are finer at short distance;
// polynomials are in s = 2 (x - floor(x)) - 1.
template <typename T> struct RadialTable {
  const T *values;
  int64_t num_species, intervals, degrees, order;
  double r_max, stretch;
};

template <typename T> struct EdgeList {
  const double *vec;          // [E, 3] from center to neighbor
  const int64_t *species;     // [nodes]
  const int64_t *center, *neighbor;
  const int64_t *ptr, *order; // edges of node n: order[ptr[n]]..; order null: the edges themselves
  RadialTable<T> table;
};

// out[n, b, r, :] = sum_k matrix[k, r] x[n, k, channels of block b]
template <typename T> struct ProjectArguments {
  int64_t rows, channels, blocks, rank;    // rank: padded
  const T *x, *matrix;                     // [n, rows, channels], [rows, rank]
  T *out;
};

template <typename T> struct ConvolutionArguments {
  int64_t l_max, rank, channels, blocks, rows_in, rows_out;
  EdgeList<T> edges;
  const T *harmonics;         // [D, padded row] factors of the spherical harmonics
  const T *output;            // forward: [rows_out, rank]; adjoint: input1 [rows_in, rank]
  const T *u, *g;             // blocked features of the nodes; blocked gradient of the centers
  T *out;                     // forward: messages [centers, rows_out, channels]
                              // adjoint: gradient [nodes, rows_in, channels], may be null
  double *grad_vec;           // adjoint: [E, 3]
};

// A[i, lm, c] = sum_j Y_lm(r_ij) w_l,c(r_ij), and its adjoint
template <typename T> struct DensityArguments {
  int64_t l_max, channels, blocks;
  EdgeList<T> edges;
  const T *g;                 // blocked gradient [centers, blocks, D, width]
  T *out;                     // forward: [centers, D, channels]
  double *grad_vec;           // adjoint: [E, 3]
};

// Each works on the nodes [begin, end); `scratch` has as many elements as `scratch_size` says.
using ScratchSize = int64_t (*)(int64_t l_max, int64_t degrees, int64_t rank, int64_t blocks);

template <typename T> struct ConvolutionKernels {
  int64_t width;    // channels per block
  int64_t (*padded_rank)(int64_t rank);
  int64_t (*padded_row)(int64_t rank);    // of `harmonics`
  void (*project)(const ProjectArguments<T> &, int64_t begin, int64_t end);
  ScratchSize scratch_size;
  void (*forward)(const ConvolutionArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*adjoint)(const ConvolutionArguments<T> &, T *scratch, int64_t begin, int64_t end);
};

template <typename T> struct DensityKernels {
  ScratchSize scratch_size;    // with rank = number of components
  void (*forward)(const DensityArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*adjoint)(const DensityArguments<T> &, T *scratch, int64_t begin, int64_t end);
};

struct ConvolutionTable {
  ConvolutionKernels<float> float32;
  ConvolutionKernels<double> float64;
};

struct DensityTable {
  DensityKernels<float> float32;
  DensityKernels<double> float64;
};

// The tables for this processor.
const ConvolutionTable &convolution_table();
const DensityTable &density_table();

}    // namespace tdn

#endif
