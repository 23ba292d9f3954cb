#include "radial.h"

#include "degree_linear/degree_linear_kernels.h"
#include "common/parallel.h"
#include "radial_kernels.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <cmath>
#include <vector>

namespace tdn {
namespace {

template <typename T> struct Tables;
template <> struct Tables<float> {
  const RadialKernels<float> &radial = radial_table().float32;
  const DegreeLinearKernels<float> &linear = degree_linear_table().float32;
};
template <> struct Tables<double> {
  const RadialKernels<double> &radial = radial_table().float64;
  const DegreeLinearKernels<double> &linear = degree_linear_table().float64;
};

void check(TDN_RADIAL_PARAMETERS)
{
  int64_t size = 0;
  for (size_t i = 1; i < widths.size(); ++i) size += widths[i - 1] * widths[i];
  TORCH_CHECK_VALUE(widths.size() >= 3 && weights.dim() == 1 && weights.size(0) == size &&
                        scale.dim() == 2 && scale.size(1) == widths[1],
                    "radial: expected widths B, H1, .., K with a hidden layer, weights [", size,
                    "] and scale [P, H1], found ", widths, ", ", weights.sizes(), " and ",
                    scale.sizes());
  TORCH_CHECK_VALUE(r.dim() == 1 && pair.dim() == 1 && pair.sym_size(0) == r.sym_size(0) &&
                        pair.scalar_type() == at::kLong,
                    "radial: expected r [E] and int64 pair [E], found ", r.sym_sizes(), " and ",
                    pair.sym_sizes(), " of ", pair.scalar_type());
  for (const Tensor &x : {scale, weights})
    TORCH_CHECK_VALUE(x.scalar_type() == r.scalar_type() && x.device() == r.device(),
                      "radial: all tensors must have one type and device, found ", x.scalar_type(),
                      " on ", x.device(), " and ", r.scalar_type(), " on ", r.device());
  TORCH_CHECK_VALUE(r_max > 0 && power >= 1, "radial: r_max and power must be positive, found ",
                    r_max, " and ", power);
}

// Edges that go through the network together: what they need in between stays in the cache.
constexpr int64_t chunk_size = 128;
// Chunks are summed in so many groups at most, in one order for any number of threads.
constexpr int64_t max_groups = 64;

// The network and its inputs, which all threads share.
template <typename T> struct Network {
  const Tables<T> tables;
  const int64_t num_edges, layers;    // layers: number of matrices
  const at::IntArrayRef widths;
  const double r_max;
  const int64_t power;
  const Tensor r, pair, scale;
  std::vector<Tensor> matrices, packed;    // with the scale of silu; packed: padded to vectors

  explicit Network(TDN_RADIAL_PARAMETERS) :
      num_edges(r.size(0)), layers(int64_t(widths.size()) - 1), widths(widths), r_max(r_max),
      power(power), r(r.contiguous()), pair(pair.contiguous()), scale(scale.contiguous())
  {
    const int64_t *const index = this->pair.template const_data_ptr<int64_t>();
    for (int64_t e = 0; e < num_edges; ++e)
      TORCH_CHECK_VALUE(index[e] >= 0 && index[e] < scale.size(0),
                        "radial: pairs must lie in 0..", scale.size(0) - 1, ", found ", index[e]);
    int64_t offset = 0;
    for (int64_t i = 0; i < layers; ++i) {
      const int64_t size = widths[i] * widths[i + 1];
      const Tensor matrix = weights.slice(0, offset, offset + size).view({widths[i], widths[i + 1]});
      matrices.push_back(i > 0 ? matrix * silu_scale : matrix.contiguous());
      packed.push_back(padded(matrices.back()));
      offset += size;
    }
  }

  // Multiplications of values and derivatives of an edge.
  int64_t work() const
  {
    int64_t sum = 0;
    for (int64_t i = 0; i < layers; ++i) sum += 2 * widths[i] * widths[i + 1];
    return sum;
  }

  // Columns padded to whole vectors, as the kernel takes them.
  Tensor padded(const Tensor &matrix) const
  {
    const int64_t columns = matrix.size(1), width = tables.linear.width;
    const int64_t stride = (columns + width - 1) / width * width;
    return at::constant_pad_nd(matrix, {0, stride - columns}).contiguous();
  }

  // out = x matrix, of `rows` rows.
  void multiply(const T *x, int64_t rows, int64_t columns_in, const Tensor &padded_matrix,
                int64_t columns, T *out) const
  {
    DegreeLinearArguments<T> a{};
    a.degrees = 1;
    a.channels_in = columns_in;
    a.channels_out = columns;
    a.num_nodes = rows;
    a.stride = padded_matrix.size(1);
    a.x = x;
    a.w = padded_matrix.template const_data_ptr<T>();
    a.out = out;
    tables.linear.forward(a, 0, rows);
  }

  // out += x^T y, of `rows` rows.
  void add_product(const T *x, const T *y, int64_t rows, int64_t columns_x, int64_t columns_y,
                   T *out) const
  {
    DegreeLinearArguments<T> a{};
    a.degrees = 1;
    a.channels_in = columns_x;
    a.channels_out = a.stride = columns_y;
    a.num_nodes = rows;
    a.x = x;
    a.y = y;
    a.out = out;
    a.add = true;
    tables.linear.weight(a, 0, columns_x);
  }

  const T *scale_of(int64_t i) const
  {
    return i == 0 ? scale.template const_data_ptr<T>() : nullptr;
  }

  const int64_t *pairs(int64_t begin) const
  {
    return pair.template const_data_ptr<int64_t>() + begin;
  }
};

// Intermediate values of a chunk of n edges, of one thread. Matrices have 2 n rows, see radial_kernels.h.
template <typename T> struct Chunk {
  const Network<T> &network;
  int64_t begin = 0, n = 0;
  std::vector<std::vector<T>> inputs, sums;   // of matrix i: inputs[i], its results sums[i]

  explicit Chunk(const Network<T> &network) : network(network)
  {
    for (int64_t i = 0; i < network.layers; ++i) {
      inputs.emplace_back(2 * chunk_size * network.widths[i]);
      if (i + 1 < network.layers) sums.emplace_back(2 * chunk_size * network.widths[i + 1]);
    }
  }

  // Everything but the last product, for the edges [first, end).
  void run(int64_t first, int64_t end)
  {
    begin = first;
    n = end - first;
    const auto &kernels = network.tables.radial;
    kernels.basis(network.r.template const_data_ptr<T>() + begin, n, network.widths[0],
                  network.r_max, network.power, 0, n, inputs[0].data());
    for (int64_t i = 0; i + 1 < network.layers; ++i) {
      const int64_t columns = network.widths[i + 1];
      network.multiply(inputs[i].data(), 2 * n, network.widths[i], network.packed[i], columns,
                       sums[i].data());
      kernels.activate(sums[i].data(), network.scale_of(i), network.pairs(begin), n, columns, 0, n,
                       inputs[i + 1].data());
    }
  }
};

// Gradients by the matrices, over chunks that one thread takes one after the other.
template <typename T> struct Adjoint {
  const Network<T> &network;
  const std::vector<Tensor> &transposed;    // padded
  const T *const g, *const g_slope;         // [E, K], null: zero
  Chunk<T> chunk;
  std::vector<std::vector<T>> grads;        // of sums

  Adjoint(const Network<T> &network, const std::vector<Tensor> &transposed, const T *g,
          const T *g_slope) :
      network(network), transposed(transposed), g(g), g_slope(g_slope), chunk(network)
  {
    for (const auto &z : chunk.sums) grads.emplace_back(z.size());
  }

  // Adds to `out`, all matrices one after the other; by_edge [E, H1] is what each edge adds to the
  // gradient of its row of scale.
  void run(int64_t begin, int64_t end, T *out, T *by_edge)
  {
    chunk.run(begin, end);
    const int64_t n = end - begin, last = network.layers - 1, columns = network.widths[last + 1];
    const int64_t inner = network.widths[last], size = inner * columns;
    T *to = out + network.work() / 2 - size;    // work: twice the number of weights
    for (const bool slope : {false, true}) {
      const int64_t row = slope ? n : 0;
      T *const back = grads[last - 1].data() + row * inner;
      const T *const from = slope ? g_slope : g;
      if (!from) {
        std::fill(back, back + n * inner, T(0));
        continue;
      }
      const T *const rows = from + begin * columns;
      network.multiply(rows, n, columns, transposed[last], inner, back);
      network.add_product(chunk.inputs[last].data() + row * inner, rows, n, inner, columns, to);
    }
    for (int64_t i = last - 1; i >= 0; --i) {
      const int64_t width = network.widths[i + 1];
      network.tables.radial.deactivate(chunk.sums[i].data(), network.scale_of(i),
                                       network.pairs(begin), n, width, 0, n, grads[i].data(),
                                       i == 0 ? by_edge + begin * width : nullptr);
      to -= network.widths[i] * width;
      network.add_product(chunk.inputs[i].data(), grads[i].data(), 2 * n, network.widths[i], width,
                          to);
      if (i > 0)
        network.multiply(grads[i].data(), 2 * n, width, transposed[i], network.widths[i],
                         grads[i - 1].data());
    }
  }
};

}    // namespace

std::tuple<Tensor, Tensor> radial_slope_cpu(TDN_RADIAL_PARAMETERS)
{
  check(TDN_RADIAL_ARGUMENTS);
  const int64_t num_edges = r.size(0), columns = widths.back();
  Tensor values = at::empty({num_edges, columns}, r.options());
  Tensor slopes = at::empty({num_edges, columns}, r.options());
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "radial", [&] {
    const Network<scalar_t> network(TDN_RADIAL_ARGUMENTS);
    const int64_t last = network.layers - 1, inner = widths[last];
    scalar_t *const value = values.mutable_data_ptr<scalar_t>();
    scalar_t *const slope = slopes.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, num_edges, grain(network.work()), [&](int64_t first, int64_t final) {
      Chunk<scalar_t> chunk(network);
      for (int64_t begin = first; begin < final; begin += chunk_size) {
        chunk.run(begin, std::min(begin + chunk_size, final));
        const scalar_t *const x = chunk.inputs[last].data();
        network.multiply(x, chunk.n, inner, network.packed[last], columns, value + begin * columns);
        network.multiply(x + chunk.n * inner, chunk.n, inner, network.packed[last], columns,
                         slope + begin * columns);
      }
    });
  });
  return {values, slopes};
}

std::tuple<Tensor, Tensor> radial_adjoint_cpu(const std::optional<Tensor> &g,
                                              const std::optional<Tensor> &g_slope,
                                              TDN_RADIAL_PARAMETERS)
{
  check(TDN_RADIAL_ARGUMENTS);
  const int64_t num_edges = r.size(0), columns = widths.back();
  const auto gradient = [&](const std::optional<Tensor> &x) {
    TORCH_CHECK_VALUE(!x || (x->dim() == 2 && x->size(0) == num_edges && x->size(1) == columns &&
                             x->scalar_type() == r.scalar_type()),
                      "radial: gradients must be [", num_edges, ", ", columns, "]");
    return x ? x->contiguous() : Tensor();
  };
  const Tensor for_value = gradient(g), for_slope = gradient(g_slope);
  Tensor grad_scale = at::zeros(scale.sizes(), scale.options());
  Tensor grad_weights = at::zeros(weights.sizes(), weights.options());
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "radial_adjoint", [&] {
    using T = scalar_t;
    const Network<T> network(TDN_RADIAL_ARGUMENTS);
    const auto pointer = [](const Tensor &x) {
      return x.defined() ? x.template const_data_ptr<T>() : nullptr;
    };
    std::vector<Tensor> transposed;
    for (const Tensor &matrix : network.matrices)    // the first one's is not used
      transposed.push_back(network.padded(matrix.t().contiguous()));
    Tensor by_edge = at::empty({num_edges, widths[1]}, r.options());
    T *const by = by_edge.mutable_data_ptr<T>();

    const int64_t num_chunks = (num_edges + chunk_size - 1) / chunk_size;
    const int64_t per_group = (num_chunks + max_groups - 1) / max_groups * chunk_size;
    const int64_t num_groups = num_edges > 0 ? (num_edges + per_group - 1) / per_group : 0;
    const int64_t num_weights = weights.size(0);
    Tensor partial = at::zeros({num_groups, num_weights}, weights.options());
    T *const parts = partial.mutable_data_ptr<T>();
    at::parallel_for(0, num_groups, grain(2 * per_group * network.work()),
                     [&](int64_t first, int64_t final) {
      Adjoint<T> adjoint(network, transposed, pointer(for_value), pointer(for_slope));
      for (int64_t group = first; group < final; ++group) {
        const int64_t end = std::min((group + 1) * per_group, num_edges);
        for (int64_t begin = group * per_group; begin < end; begin += chunk_size)
          adjoint.run(begin, std::min(begin + chunk_size, end), parts + group * num_weights, by);
      }
    });
    T *const out = grad_weights.mutable_data_ptr<T>();
    for (int64_t group = 0; group < num_groups; ++group)
      for (int64_t i = 0; i < num_weights; ++i) out[i] += parts[group * num_weights + i];
    const int64_t *const index = network.pairs(0);
    T *const to = grad_scale.mutable_data_ptr<T>();
    for (int64_t e = 0; e < num_edges; ++e)
      for (int64_t c = 0; c < widths[1]; ++c) to[index[e] * widths[1] + c] += by[e * widths[1] + c];
  });
  // every matrix but the first acts on silu times its scale
  grad_weights.slice(0, widths[0] * widths[1]).mul_(silu_scale);
  return {grad_scale, grad_weights};
}

Tensor row_dot_cpu(const Tensor &x, const Tensor &y)
{
  TORCH_CHECK_VALUE(x.dim() == 2 && x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type(),
                    "row_dot: expected two matrices of one size and type, found ", x.sizes(),
                    " and ", y.sizes());
  const Tensor left = x.contiguous(), right = y.contiguous();
  Tensor out = at::empty({x.size(0)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "row_dot", [&] {
    const auto &kernel = Tables<scalar_t>().radial.row_dot;
    at::parallel_for(0, x.size(0), grain(x.size(1)), [&](int64_t begin, int64_t end) {
      kernel(left.const_data_ptr<scalar_t>(), right.const_data_ptr<scalar_t>(), x.size(1), begin,
             end, out.mutable_data_ptr<scalar_t>());
    });
  });
  return out;
}

Tensor row_dot_meta(const Tensor &x, const Tensor &y)
{
  return at::empty_symint({x.sym_size(0)}, x.options());
}

std::tuple<Tensor, Tensor> row_dot_adjoint_cpu(const Tensor &g, const Tensor &x, const Tensor &y,
                                               bool need_x, bool need_y)
{
  TORCH_CHECK_VALUE(x.dim() == 2 && x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
                        g.dim() == 1 && g.size(0) == x.size(0) &&
                        g.scalar_type() == x.scalar_type(),
                    "row_dot: expected a gradient [E] and two matrices [E, K] of one type, found ",
                    g.sizes(), ", ", x.sizes(), " and ", y.sizes());
  const Tensor left = x.contiguous(), right = y.contiguous(), gradient = g.contiguous();
  const auto like = [](const Tensor &t, bool needed) {
    return needed ? at::empty(t.sizes(), t.options()) : at::empty({0}, t.options());
  };
  Tensor grad_x = like(left, need_x), grad_y = like(right, need_y);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "row_dot_adjoint", [&] {
    const auto &kernel = Tables<scalar_t>().radial.row_dot_adjoint;
    scalar_t *const to_x = need_x ? grad_x.mutable_data_ptr<scalar_t>() : nullptr;
    scalar_t *const to_y = need_y ? grad_y.mutable_data_ptr<scalar_t>() : nullptr;
    at::parallel_for(0, x.size(0), grain(2 * x.size(1)), [&](int64_t begin, int64_t end) {
      kernel(gradient.const_data_ptr<scalar_t>(), left.const_data_ptr<scalar_t>(),
             right.const_data_ptr<scalar_t>(), x.size(1), begin, end, to_x, to_y);
    });
  });
  return {grad_x, grad_y};
}

std::tuple<Tensor, Tensor> radial_slope_meta(TDN_RADIAL_PARAMETERS)
{
  check(TDN_RADIAL_ARGUMENTS);
  const auto out = [&] { return at::empty_symint({r.sym_size(0), widths.back()}, r.options()); };
  return {out(), out()};
}

std::tuple<Tensor, Tensor> radial_adjoint_meta(const std::optional<Tensor> &,
                                               const std::optional<Tensor> &, TDN_RADIAL_PARAMETERS)
{
  check(TDN_RADIAL_ARGUMENTS);
  return {at::empty_symint(scale.sym_sizes(), scale.options()),
          at::empty_symint(weights.sym_sizes(), weights.options())};
}

std::tuple<Tensor, Tensor> row_dot_adjoint_meta(const Tensor &, const Tensor &x, const Tensor &y,
                                                bool need_x, bool need_y)
{
  const auto like = [](const Tensor &t, bool needed) {
    return needed ? at::empty_symint(t.sym_sizes(), t.options()) : at::empty({0}, t.options());
  };
  return {like(x, need_x), like(y, need_y)};
}

}    // namespace tdn
