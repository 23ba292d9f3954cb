#include "component_linear_kernels.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// M rows of the result, B vectors of channels from c on.
template <typename T, int V, int M, int B>
TDN_INLINE void tile(const ComponentLinearArguments<T> &a, const T *x, T *out, int64_t r, int64_t c)
{
  Vector<T, V> total[M][B] = {};
  for (int64_t k = 0; k < a.components; ++k) {
    Vector<T, V> value[B];
    for (int b = 0; b < B; ++b) value[b] = load<T, V>(x + k * a.channels + c + b * V);
    for (int m = 0; m < M; ++m) {
      const T factor = a.matrix[(r + m) * a.components + k];
      for (int b = 0; b < B; ++b) total[m][b] += factor * value[b];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int b = 0; b < B; ++b)
      store<T, V>(out + (r + m) * a.channels + c + b * V, total[m][b]);
}

template <typename T, int V, int B>
TDN_INLINE void rows(const ComponentLinearArguments<T> &a, const T *x, T *out, int64_t c)
{
  constexpr int M = TDN_VECTOR_BYTES == 64 ? 6 : 3;
  int64_t r = 0;
  for (; r + M <= a.rows; r += M) tile<T, V, M, B>(a, x, out, r, c);
  for (; r < a.rows; ++r) tile<T, V, 1, B>(a, x, out, r, c);
}

template <typename T, int V>
TDN_INLINE void channels(const ComponentLinearArguments<T> &a, const T *x, T *out, int64_t c)
{
  for (; c + 4 * V <= a.channels; c += 4 * V) rows<T, V, 4>(a, x, out, c);
  for (; c + V <= a.channels; c += V) rows<T, V, 1>(a, x, out, c);
  if constexpr (V > 1) {
    if (c < a.channels) channels<T, V / 2>(a, x, out, c);
  }
}

template <typename T>
void component_linear(const ComponentLinearArguments<T> &a, int64_t begin, int64_t end)
{
  for (int64_t n = begin; n < end; ++n)
    channels<T, width<T>>(a, a.x + n * a.components * a.channels, a.out + n * a.rows * a.channels,
                          0);
}

}    // namespace

#define TDN_TABLE_(x) component_linear_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const ComponentLinearTable TDN_TABLE(TDN_KERNELS);
const ComponentLinearTable TDN_TABLE(TDN_KERNELS) = {component_linear<float>,
                                                     component_linear<double>};

}    // namespace tdn
