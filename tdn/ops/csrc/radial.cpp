#include "radial.h"

#include "degree_linear_kernels.h"
#include "parallel.h"
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

// The network on all edges, with its intermediate values: rows of 2 E, see radial_kernels.h.
template <typename T> struct Network {
  const Tables<T> tables;
  const int64_t num_edges, layers;    // layers: number of matrices
  at::IntArrayRef widths;
  const Tensor r, pair, scale;
  std::vector<Tensor> matrices;       // with the scale of silu
  std::vector<Tensor> inputs, sums;   // of matrix i: inputs[i] [2 E, widths[i]], sums[i] its results

  explicit Network(TDN_RADIAL_PARAMETERS) :
      num_edges(r.size(0)), layers(int64_t(widths.size()) - 1), widths(widths),
      r(r.contiguous()), pair(pair.contiguous()), scale(scale.contiguous())
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
      inputs.push_back(at::empty({2 * num_edges, widths[i]}, r.options()));
      if (i + 1 < layers) sums.push_back(at::empty({2 * num_edges, widths[i + 1]}, r.options()));
      offset += size;
    }
  }

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

  // Rows [begin, end) of x matrix.
  void multiply(const T *x, int64_t columns_in, const Tensor &padded_matrix, int64_t columns,
                int64_t begin, int64_t end, T *out) const
  {
    DegreeLinearArguments<T> a{};
    a.degrees = 1;
    a.channels_in = columns_in;
    a.channels_out = columns;
    a.num_nodes = end;
    a.stride = padded_matrix.size(1);
    a.x = x;
    a.w = padded_matrix.template const_data_ptr<T>();
    a.out = out;
    tables.linear.forward(a, begin, end);
  }

  const T *scale_of(int64_t i) const
  {
    return i == 0 ? scale.template const_data_ptr<T>() : nullptr;
  }

  // Everything but the last product; function(begin, end) for the edges that are ready.
  template <typename F> void run(double r_max, int64_t power, const F &function)
  {
    std::vector<Tensor> packed;
    for (int64_t i = 0; i + 1 < layers; ++i) packed.push_back(padded(matrices[i]));
    const T *const length = r.template const_data_ptr<T>();
    const int64_t *const index = pair.template const_data_ptr<int64_t>();
    at::parallel_for(0, num_edges, grain(2 * work()), [&](int64_t first, int64_t last) {
      // a few edges at a time stay in the cache on their way through the layers
      for (int64_t begin = first; begin < last; begin += 64) {
        const int64_t end = std::min(begin + 64, last);
        tables.radial.basis(length, num_edges, widths[0], r_max, power, begin, end,
                            inputs[0].template mutable_data_ptr<T>());
        for (int64_t i = 0; i + 1 < layers; ++i) {
          const T *const x = inputs[i].template const_data_ptr<T>();
          T *const z = sums[i].template mutable_data_ptr<T>();
          for (const int64_t shift : {int64_t(0), num_edges})
            multiply(x, widths[i], packed[i], widths[i + 1], shift + begin, shift + end, z);
          tables.radial.activate(z, scale_of(i), index, num_edges, widths[i + 1], begin, end,
                                 inputs[i + 1].template mutable_data_ptr<T>());
        }
        function(begin, end);
      }
    });
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
    Network<scalar_t> network(TDN_RADIAL_ARGUMENTS);
    const int64_t last = network.layers - 1;
    const Tensor matrix = network.padded(network.matrices[last]);
    const scalar_t *const x = network.inputs[last].template const_data_ptr<scalar_t>();
    scalar_t *const value = values.mutable_data_ptr<scalar_t>();
    scalar_t *const slope = slopes.mutable_data_ptr<scalar_t>();
    network.run(r_max, power, [&](int64_t begin, int64_t end) {
      network.multiply(x, widths[last], matrix, columns, begin, end, value);
      network.multiply(x + num_edges * widths[last], widths[last], matrix, columns, begin, end,
                       slope);
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
  Tensor grad_weights = at::empty(weights.sizes(), weights.options());
  AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "radial_adjoint", [&] {
    using T = scalar_t;
    Network<T> network(TDN_RADIAL_ARGUMENTS);
    const int64_t layers = network.layers;
    std::vector<Tensor> transposed, grads;    // grads[i]: of sums[i]
    for (int64_t i = 0; i < layers; ++i)
      transposed.push_back(network.padded(network.matrices[i].t().contiguous()));
    for (const Tensor &z : network.sums) grads.push_back(at::empty(z.sizes(), z.options()));
    Tensor by_edge = at::empty({num_edges, widths[1]}, r.options());
    const int64_t *const index = network.pair.template const_data_ptr<int64_t>();
    network.run(r_max, power, [&](int64_t begin, int64_t end) {
      for (int64_t i = layers - 1; i > 0; --i) {
        T *const to = grads[i - 1].template mutable_data_ptr<T>();
        for (const bool slope : {false, true}) {
          const int64_t shift = slope ? num_edges : 0;
          const Tensor &from = i + 1 < layers ? grads[i] : slope ? for_slope : for_value;
          if (!from.defined()) {
            std::fill(to + (shift + begin) * widths[i], to + (shift + end) * widths[i], T(0));
            continue;
          }
          const T *const x = from.template const_data_ptr<T>() +
              (i + 1 < layers ? shift * widths[i + 1] : 0);
          network.multiply(x, widths[i + 1], transposed[i], widths[i], begin, end,
                           to + shift * widths[i]);
        }
        network.tables.radial.deactivate(
            network.sums[i - 1].template const_data_ptr<T>(), network.scale_of(i - 1), index,
            num_edges, widths[i], begin, end, to,
            i == 1 ? by_edge.template mutable_data_ptr<T>() : nullptr);
      }
    });
    // matrices: rows of all edges, in one order for any number of threads
    int64_t offset = 0;
    for (int64_t i = 0; i < layers; ++i) {
      Tensor out = grad_weights.slice(0, offset, offset + widths[i] * widths[i + 1])
                       .view({widths[i], widths[i + 1]});
      offset += widths[i] * widths[i + 1];
      bool first = true;
      for (const bool slope : {false, true}) {
        const bool last = i + 1 == layers;
        const Tensor &from = last ? (slope ? for_slope : for_value) : grads[i];
        if (!from.defined()) continue;
        const int64_t shift = slope ? num_edges : 0;
        Tensor part = first ? out : at::empty(out.sizes(), out.options());
        DegreeLinearArguments<T> a{};
        a.degrees = 1;
        a.channels_in = widths[i];
        a.channels_out = a.stride = widths[i + 1];
        a.num_nodes = num_edges;
        a.x = network.inputs[i].template const_data_ptr<T>() + shift * widths[i];
        a.y = from.template const_data_ptr<T>() + (last ? 0 : shift * widths[i + 1]);
        a.out = part.template mutable_data_ptr<T>();
        at::parallel_for(0, widths[i], grain(num_edges * widths[i + 1]),
                         [&](int64_t begin, int64_t end) {
                           network.tables.linear.weight(a, begin, end);
                         });
        if (!first) out.add_(part);
        first = false;
      }
      if (first) out.zero_();
      if (i > 0) out.mul_(silu_scale);
    }
    const T *const from = by_edge.template const_data_ptr<T>();
    T *const to = grad_scale.mutable_data_ptr<T>();
    for (int64_t e = 0; e < num_edges; ++e)
      for (int64_t c = 0; c < widths[1]; ++c) to[index[e] * widths[1] + c] += from[e * widths[1] + c];
  });
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
