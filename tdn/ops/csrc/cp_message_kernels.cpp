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

// Edges that are worked on together: their rows of b and w stay in the first-level cache.
constexpr int batch_size = 16;

template <typename T> struct Batch {
  int count;
  const T *x[batch_size], *b[batch_size], *w[batch_size];
};

// B V channels from c on, ranks [r, r + N): out[r] += (sum_l b[l, r] w[l]) x[r] over a batch, with
// the sums in registers.
template <typename T, int V, int L, int N, int B>
TDN_INLINE void gather_tile(int64_t c, int64_t r, int64_t rank, int64_t channels,
                            const Batch<T> &batch, T *out)
{
  Vector<T, V> total[N][B];
  for (int n = 0; n < N; ++n)
    for (int k = 0; k < B; ++k) total[n][k] = load<T, V>(out + (r + n) * channels + c + k * V);
  for (int e = 0; e < batch.count; ++e) {
    const T *const x = batch.x[e] + r * channels + c, *const b = batch.b[e] + r;
    Vector<T, V> weight[L][B];
    for (int l = 0; l < L; ++l)
      for (int k = 0; k < B; ++k)
        weight[l][k] = load<T, V>(batch.w[e] + l * channels + c + k * V);
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < B; ++k) {
        Vector<T, V> coupling = b[n] * weight[0][k];
        for (int l = 1; l < L; ++l) coupling += b[l * rank + n] * weight[l][k];
        total[n][k] += coupling * load<T, V>(x + n * channels + k * V);
      }
  }
  for (int n = 0; n < N; ++n)
    for (int k = 0; k < B; ++k) store<T, V>(out + (r + n) * channels + c + k * V, total[n][k]);
}

// All ranks of B V channels.
template <typename T, int V, int L, int N, int B>
TDN_INLINE void gather_ranks(int64_t c, int64_t rank, int64_t channels, const Batch<T> &batch,
                             T *out)
{
  int64_t r = 0;
  for (; r + N <= rank; r += N) gather_tile<T, V, L, N, B>(c, r, rank, channels, batch, out);
  for (; r < rank; ++r) gather_tile<T, V, L, 1, B>(c, r, rank, channels, batch, out);
}

// Channels [c, channels): blocks of this width, the rest with half of it. With many registers, rows
// of several vectors are taken together: the longer, the better they are fetched.
template <typename T, int V, int L>
TDN_INLINE void gather_channels(int64_t c, int64_t rank, int64_t channels, const Batch<T> &batch,
                                T *out)
{
  constexpr bool widest = V * sizeof(T) == TDN_VECTOR_BYTES;
  if constexpr (widest && TDN_VECTOR_BYTES == 64 && L <= 3)
    for (; c + 4 * V <= channels; c += 4 * V)
      gather_ranks<T, V, L, 4, 4>(c, rank, channels, batch, out);
  for (; c + V <= channels; c += V)
    gather_ranks<T, V, L, TDN_VECTOR_BYTES == 64 ? 8 : 4, 1>(c, rank, channels, batch, out);
  if constexpr (V > 1) {
    if (c < channels) gather_channels<T, V / 2, L>(c, rank, channels, batch, out);
  }
}

template <typename T, int V, int L>
void gather_batch(int64_t rank, int64_t channels, const Batch<T> &batch, T *out)
{
  gather_channels<T, V, L>(0, rank, channels, batch, out);
}

// Channels [c, c + N V) of one edge, with p[r] = g[r] u[r]: sets grad_w[l] = sum_r b[l, r] p[r],
// and adds the sum over these channels of w[l] p[r] to grad_b[l, r]. Either may be null.
template <typename T, int V, int L, int N>
TDN_INLINE void edge_block(int64_t c, int64_t rank, int64_t channels, const T *g, const T *u,
                           const T *b, const T *w, T *grad_b, T *grad_w)
{
  Vector<T, V> weight[L][N], total[L][N] = {};
  for (int l = 0; l < L; ++l)
    for (int n = 0; n < N; ++n) weight[l][n] = load<T, V>(w + l * channels + c + n * V);
  // sums over lanes are cheap for V vectors at once
  for (int64_t first = 0; first < rank; first += V) {
    const int64_t count = rank - first < V ? rank - first : V;
    Vector<T, V> lanes[L][V];
    for (int64_t k = 0; k < count; ++k) {
      const int64_t r = first + k, at = r * channels + c;
      Vector<T, V> product[N];
      for (int n = 0; n < N; ++n) product[n] = load<T, V>(g + at + n * V) * load<T, V>(u + at + n * V);
      for (int l = 0; l < L; ++l) {
        if (grad_w)
          for (int n = 0; n < N; ++n) total[l][n] += b[l * rank + r] * product[n];
        if (grad_b) {
          Vector<T, V> sum = weight[l][0] * product[0];
          for (int n = 1; n < N; ++n) sum += weight[l][n] * product[n];
          lanes[l][k] = sum;
        }
      }
    }
    if (grad_b)
      for (int l = 0; l < L; ++l) {
        T *const out = grad_b + l * rank + first;
        if (2 * count < V) {
          for (int64_t k = 0; k < count; ++k) out[k] += sum<T, V>(lanes[l][k]);
        } else {
          for (int64_t k = count; k < V; ++k) lanes[l][k] = Vector<T, V>{};
          const Vector<T, V> result = sums<T, V>(lanes[l]);
          for (int64_t k = 0; k < count; ++k) out[k] += result[k];
        }
      }
  }
  if (grad_w)
    for (int l = 0; l < L; ++l)
      for (int n = 0; n < N; ++n) store<T, V>(grad_w + l * channels + c + n * V, total[l][n]);
}

template <typename T, int V, int L>
TDN_INLINE void edge_channels(int64_t c, int64_t rank, int64_t channels, const T *g, const T *u,
                              const T *b, const T *w, T *grad_b, T *grad_w)
{
  // vectors of channels that fit into the registers, with their weights and sums
  constexpr int wide = TDN_VECTOR_BYTES == 64 ? (L <= 3 ? 4 : 2) : (L <= 3 ? 2 : 1);
  if constexpr (wide > 1 && V * sizeof(T) == TDN_VECTOR_BYTES)
    for (; c + wide * V <= channels; c += wide * V)
      edge_block<T, V, L, wide>(c, rank, channels, g, u, b, w, grad_b, grad_w);
  for (; c + V <= channels; c += V)
    edge_block<T, V, L, 1>(c, rank, channels, g, u, b, w, grad_b, grad_w);
  if constexpr (V > 1) {
    if (c < channels) edge_channels<T, V / 2, L>(c, rank, channels, g, u, b, w, grad_b, grad_w);
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

template <typename T> using GatherBatch = void (*)(int64_t, int64_t, const Batch<T> &, T *);
template <typename T> using GradientEdge = void (*)(int64_t, int64_t, const T *, const T *,
                                                    const T *, const T *, T *, T *);

template <typename T> GatherBatch<T> gather_for(int64_t degrees)
{
  constexpr GatherBatch<T> table[max_degrees] = {
      gather_batch<T, width<T>, 1>, gather_batch<T, width<T>, 2>, gather_batch<T, width<T>, 3>,
      gather_batch<T, width<T>, 4>, gather_batch<T, width<T>, 5>};
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
    for (int64_t k = a.ptr[node]; k < a.ptr[node + 1];) {
      Batch<T> batch{};
      for (; k < a.ptr[node + 1] && batch.count < batch_size; ++k) {
        const int64_t e = a.order ? a.order[k] : k;
        if (a.order && k + batch_size <= last) {
          const int64_t next = a.order[k + batch_size];
          prefetch(a.b + next * row_b, row_b);
          prefetch(a.w + next * row_w, row_w);
        }
        batch.x[batch.count] = a.x + a.source[e] * row;
        batch.b[batch.count] = a.b + e * row_b;
        batch.w[batch.count] = a.w + e * row_w;
        ++batch.count;
      }
      for (int64_t l = 0; l < a.degrees; l += step) {
        const int64_t degrees = step < a.degrees - l ? step : a.degrees - l;
        gather_for<T>(degrees)(a.rank, a.channels, batch, a.out + node * row);
        for (int e = 0; e < batch.count; ++e) {
          batch.b[e] += degrees * a.rank;
          batch.w[e] += degrees * a.channels;
        }
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
