// Kernels of the node product on a GPU: plain pointers to its memory, no PyTorch.

#ifndef TDN_CUDA_NODE_PRODUCT_KERNELS_H
#define TDN_CUDA_NODE_PRODUCT_KERNELS_H

#include "common/queue.h"

#include <cstdint>

namespace tdn::cuda {

enum class NodePass { forward, adjoint, second };

// Weights of one species and channel: linear, then left, right and weight of every order.
inline int64_t node_weights(int64_t degrees, int64_t degrees_out, int64_t orders)
{
  return degrees_out + orders * (2 * degrees + degrees_out);
}

// What node_product_kernels.h defines. All arrays are contiguous.
template <typename T> struct NodeProduct {
  int64_t num_nodes, degrees, degrees_out, rank, orders, num_species, channels, num_weights;
  const T *m;                              // [N, D, C]
  const int64_t *species;                  // [N]
  const T *linear;                         // [S, L_out, C]
  const T *left, *right, *weight;          // [O, S, L, C], [O, S, L, C], [O, S, L_out, C]
  const T *input1, *input2, *output;       // [D, R]
  const T *g;                              // adjoint and second: gradient of y
  const T *v;                              // second: direction [N, D, C]
  T *out;                                  // y [N, D_out, C]; else gradient of m [N, D, C]
  T *along;                                // second: derivative of y along v
  T *scratch;                              // [N, node_product_scratch, C]
  T *terms;    // [N, num_weights, C]: each node's part of the gradients of weights; may be null
};

// Gradients of the weights from the terms of nodes.
template <typename T> struct NodeWeights {
  int64_t num_nodes, degrees, degrees_out, orders, num_species, channels, num_weights;
  const int64_t *species;                                       // [N]
  const T *terms;                                               // as above
  T *partial;                                                   // [chunks, S, num_weights, C]
  T *grad_linear, *grad_left, *grad_right, *grad_weight;        // shapes of the weights
};

// Ranges of nodes that are summed apart; a function of the number of nodes alone.
inline int64_t node_chunks(int64_t num_nodes)
{
  const int64_t chunks = num_nodes / 16;
  return chunks < 1 ? 1 : chunks > 64 ? 64 : chunks;
}

// Rows of scratch memory per node.
template <typename T> int64_t node_product_scratch(const NodeProduct<T> &a, NodePass pass);

// Each enqueues its work and returns a cudaError_t. Every number is the sum of one thread.
template <typename T>
int launch_node_product(const NodeProduct<T> &a, NodePass pass, const Queue &queue);
template <typename T> int launch_node_weights(const NodeWeights<T> &a, const Queue &queue);

}    // namespace tdn::cuda

#endif
