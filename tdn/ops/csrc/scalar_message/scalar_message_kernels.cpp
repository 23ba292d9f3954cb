#include "scalar_message_kernels.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// The row of w that component (l, m) takes.
template <bool shared> constexpr int row_of(int l) { return shared ? 0 : l; }

// Channels [c, c + V) of one node: all its edges, with the sums in registers.
template <typename T, int V, int L, bool shared>
TDN_INLINE void message_block(const MessageArguments<T> &a, int64_t node, int64_t c)
{
  const int64_t C = a.channels;
  Vector<T, V> total[L * L] = {};
  for (int t = 0; t < a.num_terms; ++t) {
    const MessageTerm<T> &term = a.terms[t];
    for (int64_t k = a.ptr[node]; k < a.ptr[node + 1]; ++k) {
      const int64_t e = a.order ? a.order[k] : k;
      const T *const b = term.b + e * L * L, *const w = term.w + e * a.degrees * C + c;
      const Vector<T, V> x = load<T, V>(term.x + a.source[e] * C + c);
      Vector<T, V> weight = x * load<T, V>(w);
      for (int l = 0; l < L; ++l) {
        if (l > 0 && !shared) weight = x * load<T, V>(w + l * C);
        for (int m = l * l; m < (l + 1) * (l + 1); ++m) total[m] += b[m] * weight;
      }
    }
  }
  for (int m = 0; m < L * L; ++m) store<T, V>(a.out + (node * L * L + m) * C + c, total[m]);
}

template <typename T, int V, int L, bool shared>
TDN_INLINE void message_channels(const MessageArguments<T> &a, int64_t node, int64_t c)
{
  for (; c + V <= a.channels; c += V) message_block<T, V, L, shared>(a, node, c);
  if constexpr (V > 1) {
    if (c < a.channels) message_channels<T, V / 2, L, shared>(a, node, c);
  }
}

template <typename T, int L, bool shared>
void message_nodes(const MessageArguments<T> &a, int64_t begin, int64_t end)
{
  for (int64_t node = begin; node < end; ++node)
    message_channels<T, width<T>, L, shared>(a, node, 0);
}

// Channels [c, c + V) of one edge; sums of an output that the term does not count for are null.
// What belongs to b is added up over the channels in `lanes`.
template <typename T, int V, int L, bool shared>
TDN_INLINE void edge_block(int64_t c, int64_t C, const AdjointTerm<T> &x, T *to_u, T *to_w,
                           Vector<T, V> *lanes)
{
  const Vector<T, V> u = load<T, V>(x.u + c);
  Vector<T, V> sum_u = {}, sum_w = {};
  for (int l = 0; l < L; ++l) {
    const Vector<T, V> w = load<T, V>(x.w + row_of<shared>(l) * C + c), weight = w * u;
    Vector<T, V> q = {};
    for (int m = l * l; m < (l + 1) * (l + 1); ++m) {
      const Vector<T, V> g = load<T, V>(x.g + m * C + c);
      q += x.b[m] * g;
      if (lanes) lanes[m] += g * weight;
    }
    sum_u += q * w;
    sum_w += q * u;
    if (to_w && (!shared || l == L - 1)) {
      T *const out = to_w + row_of<shared>(l) * C + c;
      store<T, V>(out, load<T, V>(out) + sum_w);
      sum_w = Vector<T, V>{};
    }
  }
  if (to_u) store<T, V>(to_u + c, load<T, V>(to_u + c) + sum_u);
}

template <typename T, int V, int L, bool shared>
TDN_INLINE void edge_channels(int64_t c, int64_t C, const AdjointTerm<T> &x, T *to_u, T *to_b,
                              T *to_w)
{
  if (c + V <= C) {
    Vector<T, V> lanes[L * L] = {};
    for (; c + V <= C; c += V)
      edge_block<T, V, L, shared>(c, C, x, to_u, to_w, to_b ? lanes : nullptr);
    if (to_b)
      for (int m = 0; m < L * L; ++m) to_b[m] += sum<T, V>(lanes[m]);
  }
  if constexpr (V > 1) {
    if (c < C) edge_channels<T, V / 2, L, shared>(c, C, x, to_u, to_b, to_w);
  }
}

template <typename T> TDN_INLINE void clear(T *p, int64_t count)
{
  for (int64_t i = 0; i < count; ++i) p[i] = 0;
}

template <typename T, int L, bool shared>
void adjoint_nodes(const AdjointArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t C = a.channels, row_w = a.degrees * C;
  if (a.grad_u) clear(a.grad_u + begin * C, (end - begin) * C);
  for (int64_t k = a.ptr[begin]; k < a.ptr[end]; ++k) {
    const int64_t e = a.order[k];
    if (a.grad_b) clear(a.grad_b + e * L * L, L * L);
    if (a.grad_w) clear(a.grad_w + e * row_w, row_w);
    for (int t = 0; t < a.num_terms; ++t) {
      AdjointTerm<T> x = a.terms[t];
      x.g += a.center[e] * L * L * C;
      x.u += a.neighbor[e] * C;
      x.b += e * L * L;
      x.w += e * row_w;
      edge_channels<T, width<T>, L, shared>(
          0, C, x, x.for_u ? a.grad_u + a.neighbor[e] * C : nullptr,
          x.for_b ? a.grad_b + e * L * L : nullptr, x.for_w ? a.grad_w + e * row_w : nullptr);
    }
  }
}

// rank = L^2 harmonics; `degrees` is 1 or L.
template <typename T> void message(const MessageArguments<T> &a, int64_t begin, int64_t end)
{
  using Function = void (*)(const MessageArguments<T> &, int64_t, int64_t);
  constexpr Function own[max_scalar_degrees] = {
      message_nodes<T, 1, false>, message_nodes<T, 2, false>, message_nodes<T, 3, false>,
      message_nodes<T, 4, false>, message_nodes<T, 5, false>, message_nodes<T, 6, false>,
      message_nodes<T, 7, false>};
  constexpr Function one[max_scalar_degrees] = {
      message_nodes<T, 1, true>, message_nodes<T, 2, true>, message_nodes<T, 3, true>,
      message_nodes<T, 4, true>, message_nodes<T, 5, true>, message_nodes<T, 6, true>,
      message_nodes<T, 7, true>};
  int64_t l_max = 0;
  while ((l_max + 1) * (l_max + 1) < a.rank) ++l_max;
  (a.degrees == l_max + 1 ? own : one)[l_max](a, begin, end);
}

template <typename T> void adjoint(const AdjointArguments<T> &a, int64_t begin, int64_t end)
{
  using Function = void (*)(const AdjointArguments<T> &, int64_t, int64_t);
  constexpr Function own[max_scalar_degrees] = {
      adjoint_nodes<T, 1, false>, adjoint_nodes<T, 2, false>, adjoint_nodes<T, 3, false>,
      adjoint_nodes<T, 4, false>, adjoint_nodes<T, 5, false>, adjoint_nodes<T, 6, false>,
      adjoint_nodes<T, 7, false>};
  constexpr Function one[max_scalar_degrees] = {
      adjoint_nodes<T, 1, true>, adjoint_nodes<T, 2, true>, adjoint_nodes<T, 3, true>,
      adjoint_nodes<T, 4, true>, adjoint_nodes<T, 5, true>, adjoint_nodes<T, 6, true>,
      adjoint_nodes<T, 7, true>};
  int64_t l_max = 0;
  while ((l_max + 1) * (l_max + 1) < a.rank) ++l_max;
  (a.degrees == l_max + 1 ? own : one)[l_max](a, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) scalar_message_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const ScalarMessageTable TDN_TABLE(TDN_KERNELS);
const ScalarMessageTable TDN_TABLE(TDN_KERNELS) = {
    {message<float>, adjoint<float>}, {message<double>, adjoint<double>}};

}    // namespace tdn
