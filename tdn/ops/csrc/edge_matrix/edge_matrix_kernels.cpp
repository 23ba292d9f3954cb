#include "edge_matrix_kernels.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.
//
// A block of channels of one edge (B vectors of V) is gathered and weighted into a buffer, D rows in
// the first cache; tiles of M rows of the result then stay in registers while the buffer is read.

namespace tdn {
namespace {

// Where component i of edge e lies.
template <typename T>
TDN_INLINE T *row_of(const EdgeRows<T> &x, int64_t e, int64_t i, int64_t components,
                     int64_t channels)
{
  return i == 0 ? x.scalars + e * channels
                : x.rest + (e * (components - 1) + i - 1) * channels;
}

// One block: channels c..c + B * V of edge e of node n.
template <typename T, int V, int B> struct Block {
  T x[max_edge_components][B * V];

  // Features of the edge, times w where it is given.
  TDN_INLINE void gather(const EdgeFeatures<T> &f, int64_t n, int64_t e, const T *w,
                         int64_t components, int64_t channels, int64_t groups, int64_t c)
  {
    const int64_t row = components * channels;
    const T *source = f.edges.scalars ? nullptr : f.source + f.index[e] * row + c;
    const T *target = f.edges.scalars ? nullptr : f.target + n * row + c;
    Vector<T, V> weight[B];
    for (int64_t i = 0; i < components; ++i) {
      if (w && (i == 0 || (i == 1 && groups > 1)))
        for (int b = 0; b < B; ++b)
          weight[b] = load<T, V>(w + (e * groups + (i ? groups - 1 : 0)) * channels + c + b * V);
      const T *own = source ? source + i * channels
                            : row_of(f.edges, e, i, components, channels) + c;
      for (int b = 0; b < B; ++b) {
        Vector<T, V> value = load<T, V>(own + b * V);
        if (target) value += load<T, V>(target + i * channels + b * V);
        if (w) value *= weight[b];
        store<T, V>(&x[i][b * V], value);
      }
    }
  }

  // Features of a node.
  TDN_INLINE void copy(const T *from, int64_t components, int64_t channels)
  {
    for (int64_t i = 0; i < components; ++i)
      for (int b = 0; b < B; ++b)
        store<T, V>(&x[i][b * V], load<T, V>(from + i * channels + b * V));
  }

  // Rows r..r + M of K x, given to `put(row, b, vector)`.
  template <int M, bool Transposed, typename Put>
  TDN_INLINE void tile(const T *matrix, int64_t components, int64_t r, const Put &put) const
  {
    Vector<T, V> total[M][B] = {};
    for (int64_t i = 0; i < components; ++i) {
      Vector<T, V> value[B];
      for (int b = 0; b < B; ++b) value[b] = load<T, V>(&x[i][b * V]);
      for (int m = 0; m < M; ++m) {
        const T factor = Transposed ? matrix[i * components + r + m] : matrix[(r + m) * components + i];
        for (int b = 0; b < B; ++b) total[m][b] += factor * value[b];
      }
    }
    for (int m = 0; m < M; ++m)
      for (int b = 0; b < B; ++b) put(r + m, b, total[m][b]);
  }

  template <bool Transposed, typename Put>
  TDN_INLINE void multiply(const T *matrix, int64_t components, const Put &put) const
  {
    constexpr int M = TDN_VECTOR_BYTES == 64 ? 6 : 3;
    int64_t r = 0;
    for (; r + M <= components; r += M) tile<M, Transposed>(matrix, components, r, put);
    if constexpr (M == 6) {
      for (; r + 4 <= components; r += 4) tile<4, Transposed>(matrix, components, r, put);
      for (; r + 3 <= components; r += 3) tile<3, Transposed>(matrix, components, r, put);
    }
    for (; r + 2 <= components; r += 2) tile<2, Transposed>(matrix, components, r, put);
    for (; r < components; ++r) tile<1, Transposed>(matrix, components, r, put);
  }
};

// Calls f<V, B>(c) for blocks that cover all channels.
template <typename T, int V, typename F>
TDN_INLINE void for_blocks(int64_t channels, int64_t c, const F &f)
{
  for (; c + 4 * V <= channels; c += 4 * V) f.template operator()<V, 4>(c);
  for (; c + V <= channels; c += V) f.template operator()<V, 1>(c);
  if constexpr (V > 1) {
    if (c < channels) for_blocks<T, V / 2>(channels, c, f);
  }
}

template <typename T, bool Transposed, bool Sum> struct Multiply {
  const EdgeMatrixArguments<T> &a;
  int64_t n, e;

  template <int V, int B> TDN_INLINE void operator()(int64_t c) const
  {
    Block<T, V, B> block;
    block.gather(a.x, n, e, a.w, a.components, a.channels, a.groups, c);
    block.template multiply<Transposed>(
        a.matrix + e * a.components * a.components, a.components,
        [&](int64_t r, int b, Vector<T, V> value) {
          T *p = Sum ? a.out + (n * a.components + r) * a.channels
                     : row_of(a.out_edges, e, r, a.components, a.channels);
          p += c + b * V;
          store<T, V>(p, Sum ? load<T, V>(p) + value : value);
        });
  }
};

template <typename T, bool Transposed, bool Sum>
TDN_INLINE void for_edges(const EdgeMatrixArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t row = a.components * a.channels;
  for (int64_t n = begin; n < end; ++n) {
    if (Sum)
      for (int64_t i = 0; i < row; ++i) a.out[n * row + i] = 0;
    for (int64_t k = a.order.ptr[n]; k < a.order.ptr[n + 1]; ++k)
      for_blocks<T, width<T>>(
          a.channels, 0,
          Multiply<T, Transposed, Sum>{a, n, a.order.order ? a.order.order[k] : k});
  }
}

template <typename T> void product(const EdgeMatrixArguments<T> &a, int64_t begin, int64_t end)
{
  a.transposed ? for_edges<T, true, false>(a, begin, end)
               : for_edges<T, false, false>(a, begin, end);
}

template <typename T> void message(const EdgeMatrixArguments<T> &a, int64_t begin, int64_t end)
{
  a.transposed ? for_edges<T, true, true>(a, begin, end) : for_edges<T, false, true>(a, begin, end);
}

// Gradients of one block but that of the matrix.
template <typename T> struct Adjoint {
  const EdgeMatrixAdjointArguments<T> &a;
  int64_t n, e;

  template <int V, int B> TDN_INLINE void operator()(int64_t c) const
  {
    const int64_t row = a.components * a.channels;
    Block<T, V, B> block, x;
    if (a.g_nodes)
      block.copy(a.g_nodes + n * row + c, a.components, a.channels);
    else
      block.gather({a.g, nullptr, nullptr, nullptr}, n, e, nullptr, a.components, a.channels, 1, c);
    if (a.grad_w) x.gather(a.x, n, e, nullptr, a.components, a.channels, 1, c);
    Vector<T, V> sums[2][B] = {}, weight[2][B];
    for (int k = 0; k < 2; ++k)
      for (int b = 0; b < B; ++b)
        weight[k][b] =
            load<T, V>(a.w + (e * a.groups + (k ? a.groups - 1 : 0)) * a.channels + c + b * V);
    block.template multiply<true>(
        a.matrix + e * a.components * a.components, a.components,
        [&](int64_t r, int b, Vector<T, V> t) {
          if (a.grad_w) sums[r > 0][b] += t * load<T, V>(&x.x[r][b * V]);
          t *= weight[r > 0][b];
          if (a.grad_x.scalars)
            store<T, V>(row_of(a.grad_x, e, r, a.components, a.channels) + c + b * V, t);
          if (a.grad_sum) {
            T *p = a.grad_sum + n * row + r * a.channels + c + b * V;
            store<T, V>(p, load<T, V>(p) + t);
          }
        });
    if (!a.grad_w) return;
    T *out = a.grad_w + e * a.groups * a.channels + c;
    for (int b = 0; b < B; ++b) {
      if (a.groups == 1) {
        store<T, V>(out + b * V, sums[0][b] + sums[1][b]);
      } else {
        store<T, V>(out + b * V, sums[0][b]);
        store<T, V>(out + a.channels + b * V, sums[1][b]);
      }
    }
  }
};

// Features of a whole edge side by side, [D, C], times w where it is given.
template <typename T> struct SideBySide {
  const EdgeMatrixAdjointArguments<T> &a;
  const EdgeFeatures<T> &x;
  const T *w;
  int64_t n, e;
  T *out;

  template <int V, int B> TDN_INLINE void operator()(int64_t c) const
  {
    Block<T, V, B> block;
    block.gather(x, n, e, w, a.components, a.channels, a.groups, c);
    for (int64_t i = 0; i < a.components; ++i)
      for (int b = 0; b < B; ++b)
        store<T, V>(out + i * a.channels + c + b * V, load<T, V>(&block.x[i][b * V]));
  }
};

// Products of M rows of g with N rows of x: sums over the channels.
template <typename T, int M, int N>
TDN_INLINE void dots(const T *g, const T *x, int64_t channels, T *out, int64_t stride)
{
  constexpr int V = width<T>;
  Vector<T, V> total[M][N] = {};
  T rest[M][N] = {};
  int64_t c = 0;
  for (; c + V <= channels; c += V)
    for (int m = 0; m < M; ++m)
      for (int k = 0; k < N; ++k)
        total[m][k] += load<T, V>(g + m * channels + c) * load<T, V>(x + k * channels + c);
  for (; c < channels; ++c)
    for (int m = 0; m < M; ++m)
      for (int k = 0; k < N; ++k) rest[m][k] += g[m * channels + c] * x[k * channels + c];
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < N; ++k) out[m * stride + k] = sum<T, V>(total[m][k]) + rest[m][k];
}

template <typename T, int M>
TDN_INLINE void dot_rows(const T *g, const T *x, int64_t components, int64_t channels, T *out)
{
  int64_t i = 0;
  for (; i + 4 <= components; i += 4)
    dots<T, M, 4>(g, x + i * channels, channels, out + i, components);
  for (; i < components; ++i) dots<T, M, 1>(g, x + i * channels, channels, out + i, components);
}

template <typename T>
void adjoint(const EdgeMatrixAdjointArguments<T> &a, int64_t begin, int64_t end, T *scratch)
{
  const int64_t row = a.components * a.channels;
  for (int64_t n = begin; n < end; ++n) {
    if (a.grad_sum)
      for (int64_t i = 0; i < row; ++i) a.grad_sum[n * row + i] = 0;
    for (int64_t e = a.order.ptr[n]; e < a.order.ptr[n + 1]; ++e) {
      if (a.grad_x.scalars || a.grad_sum || a.grad_w)
        for_blocks<T, width<T>>(a.channels, 0, Adjoint<T>{a, n, e});
      if (!a.grad_matrix) continue;
      for_blocks<T, width<T>>(a.channels, 0, SideBySide<T>{a, a.x, a.w, n, e, scratch});
      const T *g = a.g_nodes ? a.g_nodes + n * row : scratch + row;
      const EdgeFeatures<T> of_edge{a.g, nullptr, nullptr, nullptr};
      if (!a.g_nodes)
        for_blocks<T, width<T>>(a.channels, 0,
                                SideBySide<T>{a, of_edge, nullptr, n, e, scratch + row});
      T *out = a.grad_matrix + e * a.components * a.components;
      int64_t k = 0;
      for (; k + 4 <= a.components; k += 4)
        dot_rows<T, 4>(g + k * a.channels, scratch, a.components, a.channels,
                       out + k * a.components);
      for (; k < a.components; ++k)
        dot_rows<T, 1>(g + k * a.channels, scratch, a.components, a.channels,
                       out + k * a.components);
    }
  }
}

}    // namespace

#define TDN_TABLE_(x) edge_matrix_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const EdgeMatrixTable TDN_TABLE(TDN_KERNELS);
const EdgeMatrixTable TDN_TABLE(TDN_KERNELS) = {
    {product<float>, message<float>, adjoint<float>},
    {product<double>, message<double>, adjoint<double>}};

}    // namespace tdn
