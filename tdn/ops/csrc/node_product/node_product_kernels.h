// Kernels of the node product: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_NODE_PRODUCT_KERNELS_H
#define TDN_NODE_PRODUCT_KERNELS_H

#include <cstdint>

namespace tdn {

// Products of the features m of a node with themselves, order after order, for each channel:
//   power_0 = m
//   power_o = output ((input1^T left_o power_{o-1}) * (input2^T right_o m))
//   y       = linear m + sum_o weight_o power_o        (degrees of the output only)
// with weights for each species, degree and channel.
// forward: y.  adjoint: gradients of <g, y>.  second: gradients of <g, dy/dm v>, those of g and m
// and of the weights, which is what the derivatives of the adjoint consist of.
template <typename T> struct NodeProductArguments {
  int64_t components, components_out, rank, orders, num_species, channels;
  const T *m;                               // [N, D, C]
  const int64_t *species;                   // [N]
  const T *linear;                          // [S, L_out, C]
  const T *left, *right, *weight;           // [O, S, L, C], [O, S, L, C], [O, S, L_out, C]
  const T *input1, *input2, *output;        // [R, D] each: transposed
  const T *g;                               // adjoint and second: gradient of y
  const T *v;                               // second: direction [N, D, C]
  T *out;                                   // y [N, D_out, C]; else gradient of m [N, D, C]
  T *along;                                 // second: derivative of y along v
  // gradients of the weights are added to these where they are not null (all or none)
  T *grad_linear, *grad_left, *grad_right, *grad_weight;
};

// Each works on the nodes [begin, end); `scratch` has as many elements as `scratch_size` says.
template <typename T> struct NodeProductKernels {
  int64_t (*scratch_size)(int64_t components, int64_t rank, int64_t orders);
  void (*forward)(const NodeProductArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*adjoint)(const NodeProductArguments<T> &, T *scratch, int64_t begin, int64_t end);
  void (*second)(const NodeProductArguments<T> &, T *scratch, int64_t begin, int64_t end);
};

struct NodeProductTable {
  NodeProductKernels<float> float32;
  NodeProductKernels<double> float64;
};

// The table for this processor.
const NodeProductTable &node_product_table();

}    // namespace tdn

#endif
