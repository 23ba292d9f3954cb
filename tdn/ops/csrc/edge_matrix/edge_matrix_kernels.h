// Kernels of edge_product and edge_message: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_EDGE_MATRIX_KERNELS_H
#define TDN_EDGE_MATRIX_KERNELS_H

#include <cstdint>

namespace tdn {

// Features of edges lie apart: of the first component [E, C], of the others [E, D - 1, C].
template <typename T> struct EdgeRows {
  T *scalars, *rest;
};

// Edges by node: order[k], or k where order is null, for k in ptr[n]..ptr[n + 1].
struct EdgeOrder {
  const int64_t *ptr, *order;
};

// Features x of an edge e of node n: those of the edge itself, or where there are none
// source[index[e]] + target[n] of the nodes [D, C].
template <typename T> struct EdgeFeatures {
  EdgeRows<const T> edges;
  const T *source, *target;
  const int64_t *index;
};

// With K = matrix[e] [D, D], or its transpose, and x[i] times the weight of component i (w[e, 0] of
// the first, w[e, groups - 1] of the others):
// product: out_edges[e] = K x of every edge; message: out[n] = sum over the edges of n.
template <typename T> struct EdgeMatrixArguments {
  int64_t components, channels, groups;
  const T *matrix, *w;
  bool transposed;
  EdgeOrder order;
  EdgeFeatures<T> x;
  EdgeRows<T> out_edges;
  T *out;
};

// With t = K^T g of every edge, where g is that of the edge, or where there is none g_nodes[n]:
// grad_x[e] = t * w, grad_sum[n] = sum of the same over the edges of n,
// grad_w[e, group] = sum of t * x over its components, grad_matrix[e] = g (x * w)^T over channels.
// Outputs may be null. `scratch` holds 2 D C numbers.
template <typename T> struct EdgeMatrixAdjointArguments {
  int64_t components, channels, groups;
  const T *matrix, *w;
  EdgeRows<const T> g;
  const T *g_nodes;
  EdgeOrder order;
  EdgeFeatures<T> x;
  EdgeRows<T> grad_x;
  T *grad_sum, *grad_matrix, *grad_w;
};

// Each works on the nodes [begin, end) and their edges.
template <typename T> struct EdgeMatrixKernels {
  void (*product)(const EdgeMatrixArguments<T> &, int64_t begin, int64_t end);
  void (*message)(const EdgeMatrixArguments<T> &, int64_t begin, int64_t end);
  void (*adjoint)(const EdgeMatrixAdjointArguments<T> &, int64_t begin, int64_t end, T *scratch);
};

struct EdgeMatrixTable {
  EdgeMatrixKernels<float> float32;
  EdgeMatrixKernels<double> float64;
};

// The largest number D of components that the kernels take: l_max 7.
constexpr int max_edge_components = 64;

// The table for this processor.
const EdgeMatrixTable &edge_matrix_table();

}    // namespace tdn

#endif
