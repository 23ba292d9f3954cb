// Kernels of the gate on a GPU: plain pointers to its memory, no PyTorch.

#ifndef TDN_CUDA_GATE_KERNELS_H
#define TDN_CUDA_GATE_KERNELS_H

#include "common/queue.h"

#include <cstdint>

namespace tdn::cuda {

enum class GatePass { forward, adjoint, second };

// What gate.h defines, but for the products with `weight`, which are matrix products of PyTorch:
// z = x[:, 0] weight and, in the second derivative, h = v[:, 0] weight. Arrays are contiguous.
template <typename T> struct GateArguments {
  int64_t num_nodes, degrees, channels;
  double scale;
  const T *x, *z;      // [N, L^2, C], [N, L - 1, C]
  const T *g;          // adjoint and second: gradient of y
  const T *v, *h;      // second: direction, and the derivative of z along it
  T *out;              // y; else gradient of x but for what comes through z
  T *grad_z;           // adjoint and second [N, L - 1, C]
  T *grad_g, *grad_h;  // second
};

// Enqueues its work and returns a cudaError_t.
template <typename T>
int launch_gate(const GateArguments<T> &a, GatePass pass, const Queue &queue);

}    // namespace tdn::cuda

#endif
