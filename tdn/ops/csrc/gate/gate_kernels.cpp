#include "gate_kernels.h"
#include "common/exponential.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

template <typename T> void sigmoids(T *x, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  int64_t i = begin;
  for (; i + V <= end; i += V) store<T, V>(x + i, sigmoid<T, V>(load<T, V>(x + i)));
  if (i == end) return;
  T rest[V] = {};    // a whole vector as well: a scalar sigmoid may round otherwise
  for (int64_t k = i; k < end; ++k) rest[k - i] = x[k];
  store<T, V>(rest, sigmoid<T, V>(load<T, V>(rest)));
  for (int64_t k = i; k < end; ++k) x[k] = rest[k - i];
}

}    // namespace

#define TDN_TABLE_(x) gate_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const GateTable TDN_TABLE(TDN_KERNELS);
const GateTable TDN_TABLE(TDN_KERNELS) = {{sigmoids<float>}, {sigmoids<double>}};

}    // namespace tdn
