// Kernels of the gate: plain pointers, compiled once per instruction set.
// Nothing but <cstdint> may be included here (see cp_message_kernels.h).

#ifndef TDN_GATE_KERNELS_H
#define TDN_GATE_KERNELS_H

#include <cstdint>

namespace tdn {

template <typename T> struct GateKernels {
  // x[i] = sigmoid(x[i]) for i in [begin, end). Unlike PyTorch's, a number gives the same bits
  // wherever it stands, so that results do not depend on how threads share the numbers.
  void (*sigmoid)(T *x, int64_t begin, int64_t end);
};

struct GateTable {
  GateKernels<float> float32;
  GateKernels<double> float64;
};

// The table for this processor.
const GateTable &gate_table();

}    // namespace tdn

#endif
