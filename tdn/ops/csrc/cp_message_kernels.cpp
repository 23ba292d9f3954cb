#include "cp_message_kernels.h"
#include "vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// Degrees handled in one sweep; more are split into several.
constexpr int max_degrees = 5;

// Rows of b and w in the order by neighbour are scattered, and too short for the processor to see
// a pattern; asking early halves the time of the transposed message. (Rows of x are long: there it
// does not help.)
template <typename T> TDN_INLINE void prefetch(const T *p, int64_t count)
{
  const char *bytes = reinterpret_cast<const char *>(p);
  for (int64_t at = 0; at < count * int64_t(sizeof(T)); at += 64) __builtin_prefetch(bytes + at);
}

// Channels [c, c + N V) of one edge: out[r] += (sum_l b[l,r] w[l]) x[r].
template <typename T, int V, int N, int L>
TDN_INLINE void gather_block(int64_t rank, int64_t channels, const T *x, const T *b, const T *w,
                             T *out)
{
  Vector<T, V> weight[L][N];
  for (int l = 0; l < L; ++l)
    for (int n = 0; n < N; ++n) weight[l][n] = load<T, V>(w + l * channels + n * V);
  for (int64_t r = 0; r < rank; ++r) {
    Vector<T, V> coupling[N];
    for (int n = 0; n < N; ++n) coupling[n] = b[r] * weight[0][n];
    for (int l = 1; l < L; ++l)
      for (int n = 0; n < N; ++n) coupling[n] += b[l * rank + r] * weight[l][n];
    for (int n = 0; n < N; ++n) {
      const int64_t at = r * channels + n * V;
      store<T, V>(out + at, load<T, V>(out + at) + coupling[n] * load<T, V>(x + at));
    }
  }
}

// Channels [c, channels): blocks of this width, the rest with half of it.
template <typename T, int V, int L>
TDN_INLINE void gather_channels(int64_t c, int64_t rank, int64_t channels, const T *x, const T *b,
                                const T *w, T *out)
{
  for (; c + 2 * V <= channels; c += 2 * V)
    gather_block<T, V, 2, L>(rank, channels, x + c, b, w + c, out + c);
  for (; c + V <= channels; c += V)
    gather_block<T, V, 1, L>(rank, channels, x + c, b, w + c, out + c);
  if constexpr (V > 1) {
    if (c < channels) gather_channels<T, V / 2, L>(c, rank, channels, x, b, w, out);
  }
}

template <typename T, int V, int L>
void gather_edge(int64_t rank, int64_t channels, const T *x, const T *b, const T *w, T *out)
{
  gather_channels<T, V, L>(0, rank, channels, x, b, w, out);
}

// Channels [c, end) of one edge, ranks r..r+N: adds to grad_b and grad_w.
template <typename T, int V, int L, int N>
TDN_INLINE void edge_ranks(int64_t c, int64_t end, int64_t r, int64_t rank, int64_t channels,
                           const T *__restrict__ g, const T *__restrict__ u,
                           const T *__restrict__ b, const T *__restrict__ w,
                           T *__restrict__ grad_b, T *__restrict__ grad_w)
{
  Vector<T, V> sums[L][N] = {}, factor[L][N];
  for (int l = 0; l < L; ++l)    // in all elements: x - 0 is x, also for x = -0
    for (int n = 0; n < N; ++n) factor[l][n] = b[l * rank + r + n] - Vector<T, V>{};
  g += r * channels;
  u += r * channels;
  for (; c < end; c += V) {
    Vector<T, V> product[N];
    for (int n = 0; n < N; ++n)
      product[n] = load<T, V>(g + n * channels + c) * load<T, V>(u + n * channels + c);
    for (int l = 0; l < L; ++l) {
      if (grad_b) {
        const Vector<T, V> weight = load<T, V>(w + l * channels + c);
        for (int n = 0; n < N; ++n) sums[l][n] += weight * product[n];
      }
      if (grad_w) {
        Vector<T, V> total = load<T, V>(grad_w + l * channels + c);
        for (int n = 0; n < N; ++n) total += factor[l][n] * product[n];
        store<T, V>(grad_w + l * channels + c, total);
      }
    }
  }
  if (grad_b)
    for (int l = 0; l < L; ++l)
      for (int n = 0; n < N; ++n) grad_b[l * rank + r + n] += sum<T, V>(sums[l][n]);
}

template <typename T, int V, int L>
TDN_INLINE void edge_channels(int64_t c, int64_t rank, int64_t channels, const T *g, const T *u,
                              const T *b, const T *w, T *grad_b, T *grad_w)
{
  const int64_t end = c + (channels - c) / V * V;
  if (c < end) {
    int64_t r = 0;
    for (; r + 2 <= rank; r += 2)
      edge_ranks<T, V, L, 2>(c, end, r, rank, channels, g, u, b, w, grad_b, grad_w);
    if (r < rank) edge_ranks<T, V, L, 1>(c, end, r, rank, channels, g, u, b, w, grad_b, grad_w);
  }
  if constexpr (V > 1) {
    if (end < channels)
      edge_channels<T, V / 2, L>(end, rank, channels, g, u, b, w, grad_b, grad_w);
  }
}

template <typename T, int V, int L>
void gradient_edge(int64_t rank, int64_t channels, const T *g, const T *u, const T *b, const T *w,
                   T *grad_b, T *grad_w)
{
  // With constant null pointers the compiler drops the unwanted half.
  if (!grad_w)
    edge_channels<T, V, L>(0, rank, channels, g, u, b, w, grad_b, static_cast<T *>(nullptr));
  else if (!grad_b)
    edge_channels<T, V, L>(0, rank, channels, g, u, b, w, static_cast<T *>(nullptr), grad_w);
  else
    edge_channels<T, V, L>(0, rank, channels, g, u, b, w, grad_b, grad_w);
}

template <typename T> using GatherEdge = void (*)(int64_t, int64_t, const T *, const T *,
                                                  const T *, T *);
template <typename T> using GradientEdge = void (*)(int64_t, int64_t, const T *, const T *,
                                                    const T *, const T *, T *, T *);

template <typename T> GatherEdge<T> gather_for(int64_t degrees)
{
  constexpr GatherEdge<T> table[max_degrees] = {
      gather_edge<T, width<T>, 1>, gather_edge<T, width<T>, 2>, gather_edge<T, width<T>, 3>,
      gather_edge<T, width<T>, 4>, gather_edge<T, width<T>, 5>};
  return table[degrees - 1];
}

template <typename T> GradientEdge<T> gradient_for(int64_t degrees)
{
  constexpr GradientEdge<T> table[max_degrees] = {
      gradient_edge<T, width<T>, 1>, gradient_edge<T, width<T>, 2>, gradient_edge<T, width<T>, 3>,
      gradient_edge<T, width<T>, 4>, gradient_edge<T, width<T>, 5>};
  return table[degrees - 1];
}

// Degrees per sweep: as even as possible.
int64_t sweep_degrees(int64_t degrees)
{
  const int64_t sweeps = (degrees + max_degrees - 1) / max_degrees;
  return (degrees + sweeps - 1) / sweeps;
}

template <typename T> void gather(const GatherArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t row = a.rank * a.channels, row_b = a.degrees * a.rank;
  const int64_t row_w = a.degrees * a.channels;
  for (int64_t i = begin * row; i < end * row; ++i) a.out[i] = 0;
  if (a.degrees == 0) return;
  const int64_t step = sweep_degrees(a.degrees);
  const int64_t last = a.ptr[end] - 1;
  for (int64_t node = begin; node < end; ++node)
    for (int64_t k = a.ptr[node]; k < a.ptr[node + 1]; ++k) {
      const int64_t e = a.order ? a.order[k] : k;
      if (a.order && k < last) {
        const int64_t next = a.order[k + 1];
        prefetch(a.b + next * row_b, row_b);
        prefetch(a.w + next * row_w, row_w);
      }
      for (int64_t l = 0; l < a.degrees; l += step) {
        const int64_t degrees = step < a.degrees - l ? step : a.degrees - l;
        gather_for<T>(degrees)(a.rank, a.channels, a.x + a.source[e] * row,
                               a.b + e * row_b + l * a.rank, a.w + e * row_w + l * a.channels,
                               a.out + node * row);
      }
    }
}

template <typename T> void edges(const EdgeArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t row = a.rank * a.channels, row_b = a.degrees * a.rank;
  const int64_t row_w = a.degrees * a.channels;
  if (a.grad_b)
    for (int64_t i = begin * row_b; i < end * row_b; ++i) a.grad_b[i] = 0;
  if (a.grad_w)
    for (int64_t i = begin * row_w; i < end * row_w; ++i) a.grad_w[i] = 0;
  if (a.degrees == 0) return;
  const int64_t step = sweep_degrees(a.degrees);
  for (int64_t e = begin; e < end; ++e)
    for (int64_t l = 0; l < a.degrees; l += step) {
      const int64_t degrees = step < a.degrees - l ? step : a.degrees - l;
      const int64_t at_b = e * row_b + l * a.rank, at_w = e * row_w + l * a.channels;
      gradient_for<T>(degrees)(a.rank, a.channels, a.g + a.centre[e] * row,
                               a.u + a.neighbour[e] * row, a.b + at_b, a.w + at_w,
                               a.grad_b ? a.grad_b + at_b : nullptr,
                               a.grad_w ? a.grad_w + at_w : nullptr);
    }
}

}    // namespace

#define TDN_STRING_(x) #x
#define TDN_STRING(x) TDN_STRING_(x)
#define TDN_TABLE_(x) kernels_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const KernelTable TDN_TABLE(TDN_KERNELS);
const KernelTable TDN_TABLE(TDN_KERNELS) = {
    TDN_STRING(TDN_KERNELS), {gather<float>, edges<float>}, {gather<double>, edges<double>}};

}    // namespace tdn
