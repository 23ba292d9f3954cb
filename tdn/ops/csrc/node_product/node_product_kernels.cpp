#include "node_product_vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

int64_t scratch_size(int64_t components, int64_t rank, int64_t orders)
{
  constexpr int V = width<float>;
  const int64_t count = orders > 0 ? orders : 1;
  return ((12 + 2 * count) * components + (4 * count + 4) * rank) * V;
}

}    // namespace

#define TDN_TABLE_(x) node_product_##x
#define TDN_TABLE(x) TDN_TABLE_(x)
#define TDN_KERNELS_OF                                                                           \
  {                                                                                              \
    scratch_size, TDN_KERNELS::node_product_forward, TDN_KERNELS::node_product_adjoint,          \
        TDN_KERNELS::node_product_second                                                         \
  }

extern const NodeProductTable TDN_TABLE(TDN_KERNELS);
const NodeProductTable TDN_TABLE(TDN_KERNELS) = {TDN_KERNELS_OF, TDN_KERNELS_OF};

}    // namespace tdn
