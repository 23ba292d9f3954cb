#include "component_linear/component_linear_kernels.h"
#include "convolution/convolution_kernels.h"
#include "cp_message/cp_message_kernels.h"
#include "degree_linear/degree_linear_kernels.h"
#include "edge_matrix/edge_matrix_kernels.h"
#include "gate/gate_kernels.h"
#include "node_product/node_product_kernels.h"
#include "pairs/pair_kernels.h"
#include "radial/radial_kernels.h"
#include "scalar_message/scalar_message_kernels.h"

#include <cstdlib>
#include <cstring>

namespace tdn {

#define TDN_DECLARE_TABLES(isa)                                                                  \
  extern const KernelTable kernels_##isa;                                                        \
  extern const ComponentLinearTable component_linear_##isa;                                      \
  extern const ConvolutionTable convolution_##isa;                                               \
  extern const DensityTable density_##isa;                                                       \
  extern const DegreeLinearTable degree_linear_##isa;                                            \
  extern const EdgeMatrixTable edge_matrix_##isa;                                                \
  extern const GateTable gate_##isa;                                                             \
  extern const NodeProductTable node_product_##isa;                                              \
  extern const PairDensityTable pair_density_##isa;                                              \
  extern const PairTable pairs_##isa;                                                            \
  extern const RadialKernelTable radial_##isa;                                                   \
  extern const ScalarMessageTable scalar_message_##isa;

TDN_DECLARE_TABLES(generic)
#ifdef TDN_X86
TDN_DECLARE_TABLES(avx2)
TDN_DECLARE_TABLES(avx512)
#endif

#ifdef TDN_X86

namespace {

enum class Capability { generic, avx2, avx512 };

// The widest instructions the processor has, limited by TDN_CPU_CAPABILITY (generic, avx2 or
// avx512), which is meant for tests.
Capability find_capability()
{
  const char *limit = std::getenv("TDN_CPU_CAPABILITY");
  if (limit && !std::strcmp(limit, "generic")) return Capability::generic;
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (avx512 && !(limit && !std::strcmp(limit, "avx2"))) return Capability::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Capability::avx2;
  return Capability::generic;
}

Capability capability()
{
  static const Capability found = find_capability();
  return found;
}

}    // namespace

#define TDN_CHOOSE(table)                                                                        \
  switch (capability()) {                                                                        \
    case Capability::avx512: return table##_avx512;                                              \
    case Capability::avx2: return table##_avx2;                                                  \
    default: return table##_generic;                                                             \
  }
#else
#define TDN_CHOOSE(table) return table##_generic;
#endif

const KernelTable &kernel_table() { TDN_CHOOSE(kernels) }
const ComponentLinearTable &component_linear_table() { TDN_CHOOSE(component_linear) }
const ConvolutionTable &convolution_table() { TDN_CHOOSE(convolution) }
const DensityTable &density_table() { TDN_CHOOSE(density) }
const DegreeLinearTable &degree_linear_table() { TDN_CHOOSE(degree_linear) }
const EdgeMatrixTable &edge_matrix_table() { TDN_CHOOSE(edge_matrix) }
const GateTable &gate_table() { TDN_CHOOSE(gate) }
const NodeProductTable &node_product_table() { TDN_CHOOSE(node_product) }
const PairDensityTable &pair_density_table() { TDN_CHOOSE(pair_density) }
const PairTable &pair_table() { TDN_CHOOSE(pairs) }
const RadialKernelTable &radial_table() { TDN_CHOOSE(radial) }
const ScalarMessageTable &scalar_message_table() { TDN_CHOOSE(scalar_message) }

}    // namespace tdn
