#include "edge_geometry.h"

#include "common/autograd.h"
#include "common/parallel.h"
#include "harmonics.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

namespace tdn {
namespace {

// A number and its derivative along a direction.
struct Dual {
  double value, along;
};

inline Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.along + b.along}; }
inline Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.along - b.along}; }
inline Dual operator*(Dual a, Dual b)
{
  return {a.value * b.value, a.value * b.along + a.along * b.value};
}
inline Dual operator*(double a, Dual b) { return {a * b.value, a * b.along}; }
inline double root(double x) { return std::sqrt(x); }
inline double inverse(double x) { return x > 0 ? 1 / x : 0; }
inline Dual root(Dual x)
{
  const double r = std::sqrt(x.value);
  return {r, 0.5 * x.along * inverse(r)};
}
inline Dual inverse(Dual x)
{
  const double y = inverse(x.value);
  return {y, -y * y * x.along};
}

using tdn::constant;
inline Dual constant(Dual, double value) { return {value, 0}; }

// Gradient of sum_k g[k] Y_k by the unit vector's components.
template <typename S>
void harmonics_adjoint(const S *n, int64_t l_max, const Legendre &legendre, const double *g, S *out)
{
  const S zero = constant(n[0], 0);
  S re = constant(n[0], 1), im = zero, re_before = zero, im_before = zero;
  out[0] = out[1] = out[2] = zero;
  for (int64_t m = 0; m <= l_max; ++m) {
    S q = constant(n[0], legendre.first[m]), before = zero, slope = zero, slope_before = zero;
    for (int64_t l = m; l <= l_max; ++l) {
      if (l > m) {
        const double a = legendre.a[l][m], b = legendre.b[l][m];
        const S next = a * (n[1] * q - b * before);
        const S next_slope = a * (q + n[1] * slope - b * slope_before);
        slope_before = slope;
        slope = next_slope;
        before = q;
        q = next;
      }
      const double even = g[l * l + l + m], odd = m > 0 ? g[l * l + l - m] : 0.0;
      out[1] = out[1] + slope * (even * re + odd * im);
      const double power = static_cast<double>(m);
      out[2] = out[2] + power * (q * (even * re_before + odd * im_before));
      out[0] = out[0] + power * (q * (odd * re_before - even * im_before));
    }
    const S next = re * n[2] - im * n[0];
    re_before = re;
    im_before = im;
    im = re * n[0] + im * n[2];
    re = next;
  }
}

template <typename S> S direction(const S *vec, S *n)
{
  const S r = root(vec[0] * vec[0] + vec[1] * vec[1] + vec[2] * vec[2]), scale = inverse(r);
  for (int d = 0; d < 3; ++d) n[d] = vec[d] * scale;
  return r;
}

// Gradient of g_r r + sum_k g_y[k] Y_k by the vector.
template <typename S>
void vector_adjoint(const S *vec, double g_r, const double *g_y, int64_t l_max,
                    const Legendre &legendre, S *out)
{
  S n[3], g[3];
  const S r = direction(vec, n), scale = inverse(r);
  harmonics_adjoint(n, l_max, legendre, g_y, g);
  const S along = g[0] * n[0] + g[1] * n[1] + g[2] * n[2];
  for (int d = 0; d < 3; ++d) out[d] = scale * (g[d] - along * n[d]) + g_r * n[d];
}

constexpr int64_t max_components = (max_l_max + 1) * (max_l_max + 1);

int64_t check(const Tensor &edge_vec, int64_t l_max)
{
  TORCH_CHECK_VALUE(edge_vec.dim() == 2 && edge_vec.sym_size(1) == 3 &&
                        edge_vec.scalar_type() == at::kDouble,
                    "edge_geometry: edge_vec must be float64 [E, 3], found ", edge_vec.sym_sizes(),
                    " of ", edge_vec.scalar_type());
  TORCH_CHECK_VALUE(l_max >= 0 && l_max <= max_l_max, "edge_geometry: l_max must lie in 0..",
                    max_l_max, ", found ", l_max);
  return (l_max + 1) * (l_max + 1);
}

// Gradients in float64, zero where there are none.
Tensor doubled(const std::optional<Tensor> &g, const Tensor &edge_vec, at::IntArrayRef sizes)
{
  if (!g || !g->defined()) return at::zeros(sizes, edge_vec.options());
  TORCH_CHECK_VALUE(g->sizes() == sizes, "edge_geometry: a gradient must be ", sizes, ", found ",
                    g->sizes());
  return g->to(at::kDouble).contiguous();
}

template <typename F> void each_edge(int64_t num_edges, int64_t components, const F &function)
{
  at::parallel_for(0, num_edges, grain(16 * components), [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) function(e);
  });
}

}    // namespace

std::tuple<Tensor, Tensor> edge_geometry_cpu(const Tensor &edge_vec, int64_t l_max,
                                             at::ScalarType dtype)
{
  const int64_t components = check(edge_vec, l_max), num_edges = edge_vec.size(0);
  const Legendre legendre(l_max);
  const Tensor vectors = edge_vec.contiguous();
  Tensor r = at::empty({num_edges}, edge_vec.options().dtype(dtype));
  Tensor y = at::empty({num_edges, components}, r.options());
  AT_DISPATCH_FLOATING_TYPES(dtype, "edge_geometry", [&] {
    const double *const vec = vectors.const_data_ptr<double>();
    scalar_t *const to_r = r.mutable_data_ptr<scalar_t>(), *to_y = y.mutable_data_ptr<scalar_t>();
    each_edge(num_edges, components, [&](int64_t e) {
      double n[3], out[max_components];
      to_r[e] = static_cast<scalar_t>(direction(vec + 3 * e, n));
      harmonics(n[0], n[1], n[2], l_max, legendre, out);
      for (int64_t k = 0; k < components; ++k)
        to_y[e * components + k] = static_cast<scalar_t>(out[k]);
    });
  });
  return {r, y};
}

Tensor edge_geometry_adjoint_cpu(const std::optional<Tensor> &g_r, const std::optional<Tensor> &g_y,
                                 const Tensor &edge_vec, int64_t l_max)
{
  const int64_t components = check(edge_vec, l_max), num_edges = edge_vec.size(0);
  const Legendre legendre(l_max);
  const Tensor vectors = edge_vec.contiguous();
  const Tensor for_r = doubled(g_r, edge_vec, {num_edges});
  const Tensor for_y = doubled(g_y, edge_vec, {num_edges, components});
  Tensor out = at::empty({num_edges, 3}, edge_vec.options());
  const double *const vec = vectors.const_data_ptr<double>();
  const double *const from_r = for_r.const_data_ptr<double>();
  const double *const from_y = for_y.const_data_ptr<double>();
  double *const to = out.mutable_data_ptr<double>();
  each_edge(num_edges, 2 * components, [&](int64_t e) {
    vector_adjoint(vec + 3 * e, from_r[e], from_y + e * components, l_max, legendre, to + 3 * e);
  });
  return out;
}

std::tuple<Tensor, Tensor, Tensor> edge_geometry_second_cpu(const Tensor &v,
                                                            const std::optional<Tensor> &g_r,
                                                            const std::optional<Tensor> &g_y,
                                                            const Tensor &edge_vec, int64_t l_max,
                                                            at::ScalarType dtype, bool need_vec)
{
  const int64_t components = check(edge_vec, l_max), num_edges = edge_vec.size(0);
  const Legendre legendre(l_max);
  const Tensor vectors = edge_vec.contiguous(), direction_ = doubled(v, edge_vec, {num_edges, 3});
  Tensor for_r = at::empty({num_edges}, edge_vec.options().dtype(dtype));
  Tensor for_y = at::empty({num_edges, components}, for_r.options());
  Tensor for_vec = at::empty({need_vec ? num_edges : 0, need_vec ? 3 : 0}, edge_vec.options());
  const Tensor from_r = doubled(g_r, edge_vec, {num_edges});
  const Tensor from_y = doubled(g_y, edge_vec, {num_edges, components});
  AT_DISPATCH_FLOATING_TYPES(dtype, "edge_geometry_second", [&] {
    const double *const vec = vectors.const_data_ptr<double>();
    const double *const along = direction_.const_data_ptr<double>();
    const double *const r_ = from_r.const_data_ptr<double>();
    const double *const y_ = from_y.const_data_ptr<double>();
    scalar_t *const to_r = for_r.mutable_data_ptr<scalar_t>();
    scalar_t *const to_y = for_y.mutable_data_ptr<scalar_t>();
    double *const to_vec = need_vec ? for_vec.mutable_data_ptr<double>() : nullptr;
    each_edge(num_edges, 4 * components, [&](int64_t e) {
      Dual moved[3], n[3], out[max_components];
      for (int d = 0; d < 3; ++d) moved[d] = {vec[3 * e + d], along[3 * e + d]};
      to_r[e] = static_cast<scalar_t>(direction(moved, n).along);
      harmonics(n[0], n[1], n[2], l_max, legendre, out);
      for (int64_t k = 0; k < components; ++k)
        to_y[e * components + k] = static_cast<scalar_t>(out[k].along);
      if (!to_vec) return;
      // second derivatives are symmetric: the adjoint's own derivative along the direction
      Dual gradient[3];
      vector_adjoint(moved, r_[e], y_ + e * components, l_max, legendre, gradient);
      for (int d = 0; d < 3; ++d) to_vec[3 * e + d] = gradient[d].along;
    });
  });
  return {for_r, for_y, for_vec};
}

std::tuple<Tensor, Tensor> edge_geometry_tensor(const Tensor &edge_vec, int64_t l_max,
                                                at::ScalarType dtype)
{
  const int64_t components = check(edge_vec, l_max);
  const Legendre legendre(l_max);
  const Tensor vectors = edge_vec.to(dtype), r = at::linalg_vector_norm(vectors, 2, {1});
  const Tensor n = vectors / at::where(r > 0, r, 1).unsqueeze(1);
  std::vector<Tensor> out(components);
  harmonics(n.select(1, 0), n.select(1, 1), n.select(1, 2), l_max, legendre, out.data());
  return {r, at::stack(out, 1)};
}

std::tuple<Tensor, Tensor> edge_geometry_meta(const Tensor &edge_vec, int64_t l_max,
                                              at::ScalarType dtype)
{
  const int64_t components = check(edge_vec, l_max);
  const auto options = edge_vec.options().dtype(dtype);
  return {at::empty_symint({edge_vec.sym_size(0)}, options),
          at::empty_symint({edge_vec.sym_size(0), components}, options)};
}

Tensor edge_geometry_adjoint_meta(const std::optional<Tensor> &g_r,
                                  const std::optional<Tensor> &g_y, const Tensor &edge_vec,
                                  int64_t l_max)
{
  check(edge_vec, l_max);
  return at::empty_symint(edge_vec.sym_sizes(), edge_vec.options());
}

std::tuple<Tensor, Tensor, Tensor> edge_geometry_second_meta(const Tensor &,
                                                             const std::optional<Tensor> &,
                                                             const std::optional<Tensor> &,
                                                             const Tensor &edge_vec, int64_t l_max,
                                                             at::ScalarType dtype, bool need_vec)
{
  const auto [r, y] = edge_geometry_meta(edge_vec, l_max, dtype);
  return {r, y,
          need_vec ? at::empty_symint(edge_vec.sym_sizes(), edge_vec.options())
                   : at::empty({0, 0}, edge_vec.options())};
}

namespace {

struct Adjoint : Function<Adjoint> {
  static Tensor forward(AutogradContext *ctx, const std::optional<Tensor> &g_r,
                        const std::optional<Tensor> &g_y, const Tensor &edge_vec, int64_t l_max)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({g_r.value_or(Tensor()), g_y.value_or(Tensor()), edge_vec});
    ctx->saved_data["l_max"] = l_max;
    static const auto op =
        find_operator<decltype(edge_geometry_adjoint_cpu)>("tdn::edge_geometry_adjoint");
    return op.call(g_r, g_y, edge_vec, l_max);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    TORCH_CHECK(!at::GradMode::is_enabled(), "edge_geometry has two derivatives only");
    const variable_list s = ctx->get_saved_variables();
    static const auto op =
        find_operator<decltype(edge_geometry_second_cpu)>("tdn::edge_geometry_second");
    // gradients that are not there have no place among the inputs
    const bool need_vec = ctx->needs_input_grad(int(s[0].defined()) + int(s[1].defined()));
    const Tensor &like = s[0].defined() ? s[0] : s[1];
    const at::ScalarType dtype = like.defined() ? like.scalar_type() : at::kDouble;
    const auto [for_r, for_y, for_vec] = op.call(gradients[0], maybe(s[0]), maybe(s[1]), s[2],
                                                 ctx->saved_data["l_max"].toInt(), dtype, need_vec);
    variable_list result(4);
    if (s[0].defined()) result[0] = for_r;
    if (s[1].defined()) result[1] = for_y;
    if (need_vec) result[2] = for_vec;
    return result;
  }
};

struct Geometry : Function<Geometry> {
  static variable_list forward(AutogradContext *ctx, const Tensor &edge_vec, int64_t l_max,
                               at::ScalarType dtype)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->save_for_backward({edge_vec});
    ctx->saved_data["l_max"] = l_max;
    ctx->set_materialize_grads(false);
    static const auto op = find_operator<decltype(edge_geometry_cpu)>("tdn::edge_geometry");
    const auto [r, y] = op.call(edge_vec, l_max, dtype);
    return {r, y};
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    variable_list result(3);
    if (!gradients[0].defined() && !gradients[1].defined()) return result;
    static const auto op =
        find_operator<decltype(edge_geometry_adjoint_cpu)>("tdn::edge_geometry_adjoint");
    result[0] = op.call(maybe(gradients[0]), maybe(gradients[1]), ctx->get_saved_variables()[0],
                        ctx->saved_data["l_max"].toInt());
    return result;
  }
};

}    // namespace

std::tuple<Tensor, Tensor> edge_geometry_autograd(const Tensor &edge_vec, int64_t l_max,
                                                  at::ScalarType dtype)
{
  if (!has_kernels("tdn::edge_geometry", edge_vec))
    return edge_geometry_tensor(edge_vec, l_max, dtype);
  const variable_list result = Geometry::apply(edge_vec, l_max, dtype);
  return {result[0], result[1]};
}

Tensor edge_geometry_adjoint_autograd(const std::optional<Tensor> &g_r,
                                      const std::optional<Tensor> &g_y, const Tensor &edge_vec,
                                      int64_t l_max)
{
  return Adjoint::apply(g_r, g_y, edge_vec, l_max);
}

}    // namespace tdn
