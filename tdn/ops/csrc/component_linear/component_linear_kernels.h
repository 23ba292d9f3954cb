// Kernel of component_linear: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_COMPONENT_LINEAR_KERNELS_H
#define TDN_COMPONENT_LINEAR_KERNELS_H

#include <cstdint>

namespace tdn {

// out[n, r, c] = sum_k matrix[r, k] x[n, k, c] for the nodes [begin, end)
template <typename T> struct ComponentLinearArguments {
  int64_t rows, components, channels;
  const T *matrix, *x;
  T *out;
};

struct ComponentLinearTable {
  void (*float32)(const ComponentLinearArguments<float> &, int64_t begin, int64_t end);
  void (*float64)(const ComponentLinearArguments<double> &, int64_t begin, int64_t end);
};

// The table for this processor.
const ComponentLinearTable &component_linear_table();

}    // namespace tdn

#endif
