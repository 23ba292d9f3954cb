#include "edge_matrix_cuda_kernels.h"

#include "common/launch.h"

// A thread has V channels of all components: features of an edge stay in registers while it reads
// the matrix, whose numbers are the same for all threads of an edge, from the first-level cache.
//
// Flops and bytes of an edge with D components and C channels: 2 D^2 C flops forward and as many
// for each of the gradients; D C numbers are read from each of its ends and written (product), or
// read from the edge (message). In float32 with D 9 and C 64 that is 10 kflop for 2.3 kB each way: bound
// by memory, which sees every feature of an edge once.

namespace tdn::cuda {
namespace {

constexpr const char *bad_edges =
    "edge_matrix: edges have indices out of range; take them from sort_edges";

TDN_DEVICE bool in_range(int64_t index, int64_t size) { return index >= 0 && index < size; }

// Component `i` of edge `e`, from channel `c` on.
template <typename T>
TDN_DEVICE T *row_of(const EdgeRows<T> &x, int64_t e, int64_t i, int64_t components,
                     int64_t channels, int64_t c)
{
  return (i == 0 ? x.scalars + e * channels
                 : x.rest + (e * (components - 1) + i - 1) * channels) + c;
}

template <typename T, int V>
TDN_DEVICE Pack<T, V> times(const Pack<T, V> &x, const Pack<T, V> &y)
{
  Pack<T, V> result;
  TDN_UNROLL
  for (int v = 0; v < V; ++v) result.value[v] = x.value[v] * y.value[v];
  return result;
}

// V channels of an edge, of node `n`: features and weights.
template <typename T, int V> struct OneEdge {
  using Numbers = Pack<T, V>;
  int64_t components, channels, groups, n, e, c;

  TDN_DEVICE Numbers feature(const EdgeFeatures<T> &x, int64_t i) const
  {
    if (x.edges.scalars) return load<T, V>(row_of(x.edges, e, i, components, channels, c));
    const int64_t row = i * channels + c, node = components * channels;
    Numbers result = load<T, V>(x.source + x.index[e] * node + row);
    const Numbers target = load<T, V>(x.target + n * node + row);
    TDN_UNROLL
    for (int v = 0; v < V; ++v) result.value[v] += target.value[v];
    return result;
  }

  TDN_DEVICE Numbers weight(const T *w, int64_t i) const
  {
    return load<T, V>(w + (e * groups + (i ? groups - 1 : 0)) * channels + c);
  }
};

// Values of all components: in registers, or asked for again where D is 0.
template <typename T, int V, int D, typename F> struct Values {
  const F &value_of;
  Pack<T, V> kept[D > 0 ? D : 1];

  TDN_DEVICE explicit Values(const F &function) : value_of(function)
  {
    TDN_UNROLL
    for (int i = 0; i < D; ++i) kept[i] = function(i);
  }
  TDN_DEVICE Pack<T, V> operator[](int i) const { return D > 0 ? kept[i] : value_of(i); }
};

// Row r of K x, or of K^T x.
template <typename T, int V, int D, typename X>
TDN_DEVICE Pack<T, V> product_row(const T *matrix, int components, bool transposed, int r,
                                  const X &x)
{
  const int count = D > 0 ? D : components;
  const int step = transposed ? count : 1, first = transposed ? r : r * count;
  Pack<T, V> total{};
  TDN_UNROLL
  for (int i = 0; i < count; ++i) {
    const T factor = matrix[first + i * step];
    const Pack<T, V> value = x[i];
    TDN_UNROLL
    for (int v = 0; v < V; ++v) total.value[v] += factor * value.value[v];
  }
  return total;
}

// A thread takes V channels of one edge.
template <typename T, int V, int D> struct EdgeProduct {
  EdgeMatrixArguments<T> a;
  const int64_t *center;
  EdgeMatrixSizes sizes;
  int64_t packs;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t e = thread / packs, n = center[e], c = thread % packs * V;
    TDN_DEVICE_CHECK(in_range(n, sizes.nodes) && in_range(a.x.index[e], sizes.sources), bad_edges);
    const OneEdge<T, V> edge{a.components, a.channels, a.groups, n, e, c};
    const int count = D > 0 ? D : static_cast<int>(a.components);
    const auto feature = [&](int i) { return times(edge.feature(a.x, i), edge.weight(a.w, i)); };
    const Values<T, V, D, decltype(feature)> x(feature);
    const T *const matrix = a.matrix + e * count * count;
    TDN_UNROLL
    for (int r = 0; r < count; ++r)
      store(row_of(a.out_edges, e, r, count, a.channels, c),
            product_row<T, V, D>(matrix, count, a.transposed, r, x));
  }
};

// A thread takes V channels of one node: all of its rows where D is known, else one.
template <typename T, int V, int D> struct EdgeMessage {
  static constexpr int rows = D > 0 ? D : 1;
  EdgeMatrixArguments<T> a;
  EdgeMatrixSizes sizes;
  int64_t packs;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int count = D > 0 ? D : static_cast<int>(a.components);
    const int64_t c = thread % packs * V, tiles = D > 0 ? 1 : a.components;
    const int64_t n = thread / packs / tiles;
    const int first_row = static_cast<int>(thread / packs % tiles);
    const int64_t first = a.order.ptr[n], last = a.order.ptr[n + 1];
    TDN_DEVICE_CHECK(first >= 0 && first <= last && last <= sizes.edges, bad_edges);
    Pack<T, V> sum[rows] = {};
    for (int64_t k = first; k < last; ++k) {
      const int64_t e = a.order.order ? a.order.order[k] : k;
      TDN_DEVICE_CHECK(in_range(e, sizes.edges), bad_edges);
      const OneEdge<T, V> edge{a.components, a.channels, a.groups, n, e, c};
      const auto feature = [&](int i) { return times(edge.feature(a.x, i), edge.weight(a.w, i)); };
      const Values<T, V, D, decltype(feature)> x(feature);
      const T *const matrix = a.matrix + e * count * count;
      TDN_UNROLL
      for (int r = 0; r < rows; ++r) {
        const Pack<T, V> term =
            product_row<T, V, D>(matrix, count, a.transposed, first_row + r, x);
        TDN_UNROLL
        for (int v = 0; v < V; ++v) sum[r].value[v] += term.value[v];
      }
    }
    TDN_UNROLL
    for (int r = 0; r < rows; ++r)
      store(a.out + (n * count + first_row + r) * a.channels + c, sum[r]);
  }
};

// Gradients of features and weights: a thread takes V channels of one edge.
template <typename T, int V, int D> struct EdgeMatrixGradients {
  EdgeMatrixAdjointArguments<T> a;
  const int64_t *center;
  EdgeMatrixSizes sizes;
  int64_t packs;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t e = thread / packs, n = center[e], c = thread % packs * V;
    TDN_DEVICE_CHECK(in_range(n, sizes.nodes) &&
                         (a.x.edges.scalars || in_range(a.x.index[e], sizes.sources)),
                     bad_edges);
    const OneEdge<T, V> edge{a.components, a.channels, a.groups, n, e, c};
    const int count = D > 0 ? D : static_cast<int>(a.components);
    const auto gradient = [&](int i) {
      return a.g_nodes ? load<T, V>(a.g_nodes + (n * count + i) * a.channels + c)
                       : load<T, V>(row_of(a.g, e, i, count, a.channels, c));
    };
    const Values<T, V, D, decltype(gradient)> g(gradient);
    const T *const matrix = a.matrix + e * count * count;
    Pack<T, V> sums[2] = {};
    TDN_UNROLL
    for (int r = 0; r < count; ++r) {
      const Pack<T, V> t = product_row<T, V, D>(matrix, count, true, r, g);
      if (a.grad_w) {
        const Pack<T, V> x = edge.feature(a.x, r);
        TDN_UNROLL
        for (int v = 0; v < V; ++v) sums[r > 0].value[v] += t.value[v] * x.value[v];
      }
      if (a.grad_x.scalars)
        store(row_of(a.grad_x, e, r, count, a.channels, c), times(t, edge.weight(a.w, r)));
    }
    if (!a.grad_w) return;
    T *const to = a.grad_w + e * a.groups * a.channels + c;
    if (a.groups == 1) {
      TDN_UNROLL
      for (int v = 0; v < V; ++v) sums[0].value[v] += sums[1].value[v];
    } else {
      store(to + a.channels, sums[1]);
    }
    store(to, sums[0]);
  }
};

// Gradient of the matrix: a thread takes one number, V channels at a time.
template <typename T, int V> struct MatrixGradient {
  EdgeMatrixAdjointArguments<T> a;
  const int64_t *center;
  EdgeMatrixSizes sizes;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t count = a.components, e = thread / (count * count), n = center[e];
    const int64_t row = thread / count % count, column = thread % count;
    TDN_DEVICE_CHECK(in_range(n, sizes.nodes) &&
                         (a.x.edges.scalars || in_range(a.x.index[e], sizes.sources)),
                     bad_edges);
    T total = 0;
    for (int64_t c = 0; c < a.channels; c += V) {
      const OneEdge<T, V> edge{a.components, a.channels, a.groups, n, e, c};
      const Pack<T, V> x = times(edge.feature(a.x, column), edge.weight(a.w, column));
      const Pack<T, V> g = a.g_nodes ? load<T, V>(a.g_nodes + (n * count + row) * a.channels + c)
                                     : load<T, V>(row_of(a.g, e, row, count, a.channels, c));
      TDN_UNROLL
      for (int v = 0; v < V; ++v) total += g.value[v] * x.value[v];
    }
    a.grad_matrix[thread] = total;
  }
};

// Calls function(V, D) with both as types: packs of 16 bytes where rows allow it, single channels
// with sixteen components; the components of l_max 0 to 3, else 0.
template <int V> struct Width {
  static constexpr int value = V;
};

template <typename T, typename F> int for_shape(int64_t components, bool packed, const F &function)
{
  if (!packed) return function(Width<1>{}, Width<0>{});
  constexpr int V = widest<T>;
  if (components == 1) return function(Width<V>{}, Width<1>{});
  if (components == 4) return function(Width<V>{}, Width<4>{});
  if (components == 9) return function(Width<V>{}, Width<9>{});
  if (components == 16) return function(Width<1>{}, Width<16>{});
  return function(Width<V>{}, Width<0>{});
}

template <typename T> bool features_fit(const EdgeFeatures<T> &x, int64_t channels)
{
  return packs<T>(channels, x.edges.scalars, x.edges.rest, x.source, x.target);
}

}    // namespace

template <typename T>
int launch_edge_product(const EdgeMatrixArguments<T> &a, const int64_t *center,
                        const EdgeMatrixSizes &sizes, const Queue &queue)
{
  const bool fits = features_fit(a.x, a.channels) &&
      packs<T>(a.channels, a.w, a.out_edges.scalars, a.out_edges.rest);
  return for_shape<T>(a.components, fits, [&](auto v, auto d) {
    constexpr int V = decltype(v)::value, D = decltype(d)::value;
    const int64_t per_edge = a.channels / V;
    return launch_threads(EdgeProduct<T, V, D>{a, center, sizes, per_edge}, sizes.edges * per_edge,
                          queue);
  });
}

template <typename T>
int launch_edge_message(const EdgeMatrixArguments<T> &a, const EdgeMatrixSizes &sizes,
                        const Queue &queue)
{
  const bool fits = features_fit(a.x, a.channels) && packs<T>(a.channels, a.w, a.out);
  return for_shape<T>(a.components, fits, [&](auto v, auto d) {
    constexpr int V = decltype(v)::value, D = decltype(d)::value;
    const int64_t per_node = a.channels / V;
    const EdgeMessage<T, V, D> kernel{a, sizes, per_node};
    return launch_threads(kernel, sizes.nodes * per_node * (D > 0 ? 1 : a.components), queue);
  });
}

template <typename T>
int launch_edge_matrix_adjoint(const EdgeMatrixAdjointArguments<T> &a, const int64_t *center,
                               const EdgeMatrixSizes &sizes, const Queue &queue)
{
  const bool fits = features_fit(a.x, a.channels) &&
      packs<T>(a.channels, a.w, a.g.scalars, a.g.rest, a.g_nodes, a.grad_x.scalars, a.grad_x.rest,
               a.grad_w);
  if (a.grad_x.scalars || a.grad_w) {
    const int error = for_shape<T>(a.components, fits, [&](auto v, auto d) {
      constexpr int V = decltype(v)::value, D = decltype(d)::value;
      const int64_t per_edge = a.channels / V;
      const EdgeMatrixGradients<T, V, D> kernel{a, center, sizes, per_edge};
      return launch_threads(kernel, sizes.edges * per_edge, queue);
    });
    if (error) return error;
  }
  if (!a.grad_matrix) return 0;
  const int64_t numbers = sizes.edges * a.components * a.components;
  if (fits)
    return launch_threads(MatrixGradient<T, widest<T>>{a, center, sizes}, numbers, queue);
  return launch_threads(MatrixGradient<T, 1>{a, center, sizes}, numbers, queue);
}

#define TDN_EDGE_MATRIX_OF(T)                                                                    \
  template int launch_edge_product(const EdgeMatrixArguments<T> &, const int64_t *,              \
                                   const EdgeMatrixSizes &, const Queue &);                      \
  template int launch_edge_message(const EdgeMatrixArguments<T> &, const EdgeMatrixSizes &,      \
                                   const Queue &);                                               \
  template int launch_edge_matrix_adjoint(const EdgeMatrixAdjointArguments<T> &,                 \
                                          const int64_t *, const EdgeMatrixSizes &, const Queue &);

TDN_EDGE_MATRIX_OF(float)
TDN_EDGE_MATRIX_OF(double)

}    // namespace tdn::cuda
