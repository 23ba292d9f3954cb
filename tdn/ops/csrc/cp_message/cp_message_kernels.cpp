#include "cp_message_kernels.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// Degrees handled in one sweep; more are split into several.
constexpr int max_degrees = 5;

// Rows of b and w in the order by neighbor are scattered, and too short for the processor to see
// a pattern; asking early halves the time of the transposed message. (Rows of x are long: there it
// does not help.)
template <typename T, bool write = false> TDN_INLINE void prefetch(const T *p, int64_t count)
{
  const char *bytes = reinterpret_cast<const char *>(p);
  for (int64_t at = 0; at < count * int64_t(sizeof(T)); at += 64)
    __builtin_prefetch(bytes + at, write);
}

// Edges ahead of the one at work whose rows are asked for.
constexpr int64_t ahead = 12;

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

// What one edge adds: see AdjointTerm. Null where not wanted.
template <typename T> struct EdgeSums {
  T *u, *b, *w;
};

// Channels [c, c + N V) of one edge, with p[r] = g[r] u[r]: adds (sum_l b[l, r] w[l]) g[r] to
// to.u[r], the sum over these channels of w[l] p[r] to to.b[l, r], sum_r b[l, r] p[r] to to.w[l].
template <typename T, int V, int L, int N, bool U, bool B, bool W>
TDN_INLINE void edge_block(int64_t c, int64_t rank, int64_t channels, const AdjointTerm<T> &x,
                           const EdgeSums<T> &to)
{
  Vector<T, V> weight[L][N], total[L][N];
  for (int l = 0; l < L; ++l)
    for (int n = 0; n < N; ++n) {
      if (U || B) weight[l][n] = load<T, V>(x.w + l * channels + c + n * V);
      if (W) total[l][n] = load<T, V>(to.w + l * channels + c + n * V);
    }
  // sums over lanes are cheap for V vectors at once
  for (int64_t first = 0; first < rank; first += V) {
    const int64_t count = rank - first < V ? rank - first : V;
    Vector<T, V> lanes[L][V];
    for (int64_t k = 0; k < count; ++k) {
      const int64_t r = first + k, at = r * channels + c;
      Vector<T, V> lane[L];
      for (int n = 0; n < N; ++n) {
        const Vector<T, V> g = load<T, V>(x.g + at + n * V);
        if (U) {
          Vector<T, V> coupling = x.b[r] * weight[0][n];
          for (int l = 1; l < L; ++l) coupling += x.b[l * rank + r] * weight[l][n];
          T *const out = to.u + at + n * V;
          store<T, V>(out, load<T, V>(out) + coupling * g);
        }
        if (!B && !W) continue;
        const Vector<T, V> product = g * load<T, V>(x.u + at + n * V);
        for (int l = 0; l < L; ++l) {
          if (W) total[l][n] += x.b[l * rank + r] * product;
          if (B) lane[l] = n == 0 ? weight[l][n] * product : lane[l] + weight[l][n] * product;
        }
      }
      if (B)
        for (int l = 0; l < L; ++l) lanes[l][k] = lane[l];
    }
    if (B)
      for (int l = 0; l < L; ++l) {
        T *const out = to.b + l * rank + first;
        if (2 * count < V) {
          for (int64_t k = 0; k < count; ++k) out[k] += sum<T, V>(lanes[l][k]);
        } else {
          for (int64_t k = count; k < V; ++k) lanes[l][k] = Vector<T, V>{};
          const Vector<T, V> result = sums<T, V>(lanes[l]);
          for (int64_t k = 0; k < count; ++k) out[k] += result[k];
        }
      }
  }
  if (W)
    for (int l = 0; l < L; ++l)
      for (int n = 0; n < N; ++n) store<T, V>(to.w + l * channels + c + n * V, total[l][n]);
}

template <typename T, int V, int L, bool U, bool B, bool W>
TDN_INLINE void edge_channels(int64_t c, int64_t rank, int64_t channels, const AdjointTerm<T> &x,
                              const EdgeSums<T> &to)
{
  // vectors of channels that fit into the registers, with their weights and sums
  constexpr int wide = TDN_VECTOR_BYTES == 64 ? (L <= 3 ? 4 : 2) : (L <= 3 ? 2 : 1);
  if constexpr (wide > 1 && V * sizeof(T) == TDN_VECTOR_BYTES)
    for (; c + wide * V <= channels; c += wide * V)
      edge_block<T, V, L, wide, U, B, W>(c, rank, channels, x, to);
  for (; c + V <= channels; c += V)
    edge_block<T, V, L, 1, U, B, W>(c, rank, channels, x, to);
  if constexpr (V > 1) {
    if (c < channels) edge_channels<T, V / 2, L, U, B, W>(c, rank, channels, x, to);
  }
}

// The combinations of wanted sums are compiled one by one, so that each loop has no branches.
template <typename T, int V, int L>
void adjoint_edge(int64_t rank, int64_t channels, const AdjointTerm<T> &x, const EdgeSums<T> &out)
{
  switch ((out.u ? 4 : 0) + (out.b ? 2 : 0) + (out.w ? 1 : 0)) {
    case 1: return edge_channels<T, V, L, false, false, true>(0, rank, channels, x, out);
    case 2: return edge_channels<T, V, L, false, true, false>(0, rank, channels, x, out);
    case 3: return edge_channels<T, V, L, false, true, true>(0, rank, channels, x, out);
    case 4: return edge_channels<T, V, L, true, false, false>(0, rank, channels, x, out);
    case 5: return edge_channels<T, V, L, true, false, true>(0, rank, channels, x, out);
    case 6: return edge_channels<T, V, L, true, true, false>(0, rank, channels, x, out);
    case 7: return edge_channels<T, V, L, true, true, true>(0, rank, channels, x, out);
  }
}

// The three terms of a second derivative as training takes it, in one loop: `by_u` (g, v_u, b, w) for
// w, `by_b` (g, u, v_b, w) for u and w, `by_w` (g, u, b, v_w) for u.
template <typename T> struct SecondTerms {
  AdjointTerm<T> by_u, by_b, by_w;
};

template <typename T, int V, int L, int N>
TDN_INLINE void second_block(int64_t c, int64_t rank, int64_t channels, const SecondTerms<T> &x,
                             const EdgeSums<T> &to)
{
  const T *const b = x.by_u.b, *const v_b = x.by_b.b;
  Vector<T, V> w[L][N], v_w[L][N], total[L][N];
  for (int l = 0; l < L; ++l)
    for (int n = 0; n < N; ++n) {
      const int64_t at = l * channels + c + n * V;
      w[l][n] = load<T, V>(x.by_u.w + at);
      v_w[l][n] = load<T, V>(x.by_w.w + at);
      total[l][n] = load<T, V>(to.w + at);
    }
  for (int64_t r = 0; r < rank; ++r)
    for (int n = 0; n < N; ++n) {
      const int64_t at = r * channels + c + n * V;
      const Vector<T, V> g = load<T, V>(x.by_u.g + at);
      Vector<T, V> coupling = b[r] * v_w[0][n] + v_b[r] * w[0][n];
      for (int l = 1; l < L; ++l)
        coupling += b[l * rank + r] * v_w[l][n] + v_b[l * rank + r] * w[l][n];
      store<T, V>(to.u + at, load<T, V>(to.u + at) + coupling * g);
      const Vector<T, V> along = g * load<T, V>(x.by_u.u + at), product = g * load<T, V>(x.by_b.u + at);
      for (int l = 0; l < L; ++l)
        total[l][n] += b[l * rank + r] * along + v_b[l * rank + r] * product;
    }
  for (int l = 0; l < L; ++l)
    for (int n = 0; n < N; ++n) store<T, V>(to.w + l * channels + c + n * V, total[l][n]);
}

template <typename T, int V, int L>
TDN_INLINE void second_channels(int64_t c, int64_t rank, int64_t channels, const SecondTerms<T> &x,
                                const EdgeSums<T> &to)
{
  constexpr int wide = TDN_VECTOR_BYTES == 64 && L <= 3 ? 2 : 1;
  if constexpr (wide > 1 && V * sizeof(T) == TDN_VECTOR_BYTES)
    for (; c + wide * V <= channels; c += wide * V)
      second_block<T, V, L, wide>(c, rank, channels, x, to);
  for (; c + V <= channels; c += V) second_block<T, V, L, 1>(c, rank, channels, x, to);
  if constexpr (V > 1) {
    if (c < channels) second_channels<T, V / 2, L>(c, rank, channels, x, to);
  }
}

template <typename T, int V, int L>
void second_edge(int64_t rank, int64_t channels, const SecondTerms<T> &x, const EdgeSums<T> &to)
{
  second_channels<T, V, L>(0, rank, channels, x, to);
}

// Whether the terms are those of `SecondTerms`.
template <typename T> bool is_second(const AdjointArguments<T> &a)
{
  const AdjointTerm<T> *const t = a.terms;
  return a.num_terms == 3 && !(t[0].for_u || t[0].for_b || t[1].for_b || t[2].for_b || t[2].for_w) &&
      t[0].for_w && t[1].for_u && t[1].for_w && t[2].for_u && t[0].g == t[1].g &&
      t[0].g == t[2].g && t[0].b == t[2].b && t[0].w == t[1].w && t[1].u == t[2].u;
}

template <typename T> using GatherBatch = void (*)(int64_t, int64_t, const Batch<T> &, T *);
template <typename T> using AdjointEdge = void (*)(int64_t, int64_t, const AdjointTerm<T> &,
                                                   const EdgeSums<T> &);

template <typename T> GatherBatch<T> gather_for(int64_t degrees)
{
  constexpr GatherBatch<T> table[max_degrees] = {
      gather_batch<T, width<T>, 1>, gather_batch<T, width<T>, 2>, gather_batch<T, width<T>, 3>,
      gather_batch<T, width<T>, 4>, gather_batch<T, width<T>, 5>};
  return table[degrees - 1];
}

template <typename T> AdjointEdge<T> adjoint_for(int64_t degrees)
{
  constexpr AdjointEdge<T> table[max_degrees] = {
      adjoint_edge<T, width<T>, 1>, adjoint_edge<T, width<T>, 2>, adjoint_edge<T, width<T>, 3>,
      adjoint_edge<T, width<T>, 4>, adjoint_edge<T, width<T>, 5>};
  return table[degrees - 1];
}

template <typename T> using SecondEdge = void (*)(int64_t, int64_t, const SecondTerms<T> &,
                                                  const EdgeSums<T> &);

template <typename T> SecondEdge<T> second_for(int64_t degrees)
{
  constexpr SecondEdge<T> table[max_degrees] = {
      second_edge<T, width<T>, 1>, second_edge<T, width<T>, 2>, second_edge<T, width<T>, 3>,
      second_edge<T, width<T>, 4>, second_edge<T, width<T>, 5>};
  return table[degrees - 1];
}

// Degrees per sweep: as even as possible.
int64_t sweep_degrees(int64_t degrees)
{
  const int64_t sweeps = (degrees + max_degrees - 1) / max_degrees;
  return (degrees + sweeps - 1) / sweeps;
}

template <typename T> void message(const MessageArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t row = a.rank * a.channels, row_b = a.degrees * a.rank;
  const int64_t row_w = a.degrees * a.channels;
  for (int64_t i = begin * row; i < end * row; ++i) a.out[i] = 0;
  if (a.degrees == 0) return;
  const int64_t step = sweep_degrees(a.degrees);
  const int64_t last = a.ptr[end] - 1;
  for (int64_t node = begin; node < end; ++node)
    for (int64_t k = a.ptr[node]; k < a.ptr[node + 1];) {
      const int64_t left = a.ptr[node + 1] - k;
      const int count = static_cast<int>(left < batch_size ? left : batch_size);
      for (int t = 0; t < a.num_terms; ++t) {
        const MessageTerm<T> &term = a.terms[t];
        Batch<T> batch{};
        batch.count = count;
        for (int n = 0; n < count; ++n) {
          const int64_t e = a.order ? a.order[k + n] : k + n;
          if (a.order && k + n + batch_size <= last) {
            const int64_t next = a.order[k + n + batch_size];
            prefetch(term.b + next * row_b, row_b);
            prefetch(term.w + next * row_w, row_w);
          }
          batch.x[n] = term.x + a.source[e] * row;
          batch.b[n] = term.b + e * row_b;
          batch.w[n] = term.w + e * row_w;
        }
        for (int64_t l = 0; l < a.degrees; l += step) {
          const int64_t degrees = step < a.degrees - l ? step : a.degrees - l;
          gather_for<T>(degrees)(a.rank, a.channels, batch, a.out + node * row);
          for (int n = 0; n < count; ++n) {
            batch.b[n] += degrees * a.rank;
            batch.w[n] += degrees * a.channels;
          }
        }
      }
      k += count;
    }
}

template <typename T> TDN_INLINE void clear(T *p, int64_t count)
{
  if (p)
    for (int64_t i = 0; i < count; ++i) p[i] = 0;
}

template <typename T> void adjoint(const AdjointArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t row = a.rank * a.channels, row_b = a.degrees * a.rank;
  const int64_t row_w = a.degrees * a.channels;
  const int64_t step = a.degrees ? sweep_degrees(a.degrees) : 1, last = a.ptr[end] - 1;
  const bool together = is_second(a);
  if (a.grad_u) clear(a.grad_u + begin * row, (end - begin) * row);
  for (int64_t k = a.ptr[begin]; k < a.ptr[end]; ++k) {
    const int64_t e = a.order[k];
    if (k + ahead <= last) {
      const int64_t next = a.order[k + ahead];
      for (int t = 0; t < a.num_terms; ++t) {
        prefetch(a.terms[t].b + next * row_b, row_b);
        prefetch(a.terms[t].w + next * row_w, row_w);
      }
      if (a.grad_b) prefetch<T, true>(a.grad_b + next * row_b, row_b);
      if (a.grad_w) prefetch<T, true>(a.grad_w + next * row_w, row_w);
    }
    if (a.grad_b) clear(a.grad_b + e * row_b, row_b);
    if (a.grad_w) clear(a.grad_w + e * row_w, row_w);
    for (int64_t l = 0; l < a.degrees; l += step) {
      const int64_t degrees = step < a.degrees - l ? step : a.degrees - l;
      const int64_t at_b = e * row_b + l * a.rank, at_w = e * row_w + l * a.channels;
      const int64_t to = a.neighbor[e] * row;
      const auto here = [&](int t) {
        AdjointTerm<T> term = a.terms[t];
        term.g += a.center[e] * row;
        term.u += to;
        term.b += at_b;
        term.w += at_w;
        return term;
      };
      if (together) {
        second_for<T>(degrees)(a.rank, a.channels, {here(0), here(1), here(2)},
                               {a.grad_u + to, nullptr, a.grad_w + at_w});
        continue;
      }
      for (int t = 0; t < a.num_terms; ++t) {
        const AdjointTerm<T> term = here(t);
        adjoint_for<T>(degrees)(a.rank, a.channels, term,
                                {term.for_u ? a.grad_u + to : nullptr,
                                 term.for_b ? a.grad_b + at_b : nullptr,
                                 term.for_w ? a.grad_w + at_w : nullptr});
      }
    }
  }
}

}    // namespace

#define TDN_STRING_(x) #x
#define TDN_STRING(x) TDN_STRING_(x)
#define TDN_TABLE_(x) kernels_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const KernelTable TDN_TABLE(TDN_KERNELS);
const KernelTable TDN_TABLE(TDN_KERNELS) = {
    TDN_STRING(TDN_KERNELS), {message<float>, adjoint<float>}, {message<double>, adjoint<double>}};

}    // namespace tdn
