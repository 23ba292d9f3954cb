#include "cp_message.h"

#include "cp_message_checks.h"
#include "cp_message_kernels.h"
#include "sorted_edges/sorted_edges.h"
#include "common/find_operator.h"
#include "common/parallel.h"
#include "scalar_message/scalar_message_kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

namespace tdn {
namespace {

template <typename T> const Kernels<T> &kernels();
template <> const Kernels<float> &kernels<float>() { return kernel_table().float32; }
template <> const Kernels<double> &kernels<double>() { return kernel_table().float64; }

template <typename T> const ScalarMessageKernels<T> &scalar_kernels();
template <> const ScalarMessageKernels<float> &scalar_kernels<float>()
{
  return scalar_message_table().float32;
}
template <> const ScalarMessageKernels<double> &scalar_kernels<double>()
{
  return scalar_message_table().float64;
}

// Harmonics of more degrees than the kernels take.
bool is_large(const Tensor &b)
{
  return is_scalar(b) && b.size(1) > max_scalar_degrees * max_scalar_degrees;
}

void check_kernels(const Tensor &b)
{
  TORCH_CHECK_VALUE(!is_large(b), "cp_message: derivatives have kernels for harmonics of up to ",
                    max_scalar_degrees * max_scalar_degrees, " components, found ", b.size(1));
}

// The message of harmonics as factors.
Tensor call_with_factors(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  static const auto op = find_operator<decltype(cp_message_cpu)>("tdn::cp_message");
  return op.call(u.expand({u.size(0), b.size(1), u.size(2)}), factors_of_harmonics(b, w.size(1)), w,
                 TDN_EDGE_ARGUMENTS);
}

// Edges as the kernels walk them, contiguous and with indices that lead nowhere else.
struct SortedEdges {
  Tensor center, neighbor, center_ptr, by_neighbor, neighbor_ptr;

  explicit SortedEdges(TDN_EDGE_PARAMETERS) :
      center(center.contiguous()), neighbor(neighbor.contiguous()),
      center_ptr(center_ptr.contiguous()), by_neighbor(by_neighbor.contiguous()),
      neighbor_ptr(neighbor_ptr.contiguous())
  {
    check_edge_indices("cp_message", this->center, this->neighbor, this->center_ptr,
                       this->by_neighbor, this->neighbor_ptr);
  }
};

// One product to sum: x [nodes, R, C], b [E, L, R], w [E, L, C], all contiguous.
struct Term {
  Tensor x, b, w;

  Term(const Tensor &x, const Tensor &b, const Tensor &w) :
      x(x.contiguous()), b(b.contiguous()), w(w.contiguous())
  {
  }
};

// Sum over terms and over the edges of each center of (b^T w) x[neighbor].
// With `of_neighbors`: over the edges of each neighbor, of x[center].
Tensor message_sum(const std::vector<Term> &terms, const SortedEdges &edges, bool of_neighbors)
{
  const Tensor &ptr = of_neighbors ? edges.neighbor_ptr : edges.center_ptr;
  const Tensor &b = terms[0].b, &w = terms[0].w;
  const int64_t num_nodes = ptr.numel() - 1;
  const int64_t rank = b.size(-1), channels = w.size(2), degrees = w.size(1);
  Tensor out = at::empty({num_nodes, rank, channels}, b.options());
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "cp_message", [&] {
    MessageArguments<scalar_t> a{};
    a.rank = rank;
    a.channels = channels;
    a.degrees = degrees;
    a.ptr = ptr.const_data_ptr<int64_t>();
    a.order = of_neighbors ? edges.by_neighbor.const_data_ptr<int64_t>() : nullptr;
    a.source = (of_neighbors ? edges.center : edges.neighbor).const_data_ptr<int64_t>();
    for (const Term &term : terms)
      a.terms[a.num_terms++] = {term.x.const_data_ptr<scalar_t>(),
                                term.b.const_data_ptr<scalar_t>(),
                                term.w.const_data_ptr<scalar_t>()};
    a.out = out.mutable_data_ptr<scalar_t>();
    const auto &kernel =
        is_scalar(b) ? scalar_kernels<scalar_t>().message : kernels<scalar_t>().message;
    parallel_nodes(a.ptr, num_nodes, a.num_terms * rank * channels * (degrees + 1),
                   [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
  });
  return out;
}

// The same for what F(g, u, b, w) adds to the gradients by u, b and w.
struct EdgeTerm {
  Tensor g, u, b, w;
  bool for_u, for_b, for_w;

  EdgeTerm(const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w, bool for_u,
           bool for_b, bool for_w) :
      g(g.contiguous()), u(u.contiguous()), b(b.contiguous()), w(w.contiguous()), for_u(for_u),
      for_b(for_b), for_w(for_w)
  {
  }
};

// Gradients that no term counts for are empty [0].
std::tuple<Tensor, Tensor, Tensor> adjoint_sum(const std::vector<EdgeTerm> &terms,
                                               const SortedEdges &edges, bool need_u, bool need_b,
                                               bool need_w)
{
  const Tensor &u = terms[0].u, &b = terms[0].b, &w = terms[0].w;
  check_kernels(b);
  const auto like = [](const Tensor &x, bool needed) {
    return needed ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  };
  Tensor grad_u = like(u, need_u), grad_b = like(b, need_b), grad_w = like(w, need_w);
  const int64_t rank = b.size(-1), channels = w.size(2), degrees = w.size(1);
  AT_DISPATCH_FLOATING_TYPES(b.scalar_type(), "cp_message_adjoint", [&] {
    const auto output = [](Tensor &x, bool needed) {
      return needed ? x.mutable_data_ptr<scalar_t>() : nullptr;
    };
    AdjointArguments<scalar_t> a{};
    a.rank = rank;
    a.channels = channels;
    a.degrees = degrees;
    a.center = edges.center.const_data_ptr<int64_t>();
    a.neighbor = edges.neighbor.const_data_ptr<int64_t>();
    a.ptr = edges.neighbor_ptr.const_data_ptr<int64_t>();
    a.order = edges.by_neighbor.const_data_ptr<int64_t>();
    for (const EdgeTerm &term : terms)
      a.terms[a.num_terms++] = {term.g.const_data_ptr<scalar_t>(),
                                term.u.const_data_ptr<scalar_t>(),
                                term.b.const_data_ptr<scalar_t>(),
                                term.w.const_data_ptr<scalar_t>(),
                                term.for_u,
                                term.for_b,
                                term.for_w};
    a.grad_u = output(grad_u, need_u);
    a.grad_b = output(grad_b, need_b);
    a.grad_w = output(grad_w, need_w);
    const auto &kernel =
        is_scalar(b) ? scalar_kernels<scalar_t>().adjoint : kernels<scalar_t>().adjoint;
    parallel_nodes(a.ptr, edges.neighbor_ptr.numel() - 1,
                   a.num_terms * rank * channels * (3 * degrees + 2),
                   [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
  });
  return {grad_u, grad_b, grad_w};
}

Tensor gather_tensor(const Tensor &x, const Tensor &b, const Tensor &w, const Tensor &ptr,
                     const Tensor &target, const Tensor &source)
{
  const Tensor message = at::bmm(b.transpose(1, 2), w).mul_(x.index_select(0, source));
  return at::zeros({ptr.numel() - 1, b.size(2), w.size(2)}, x.options())
      .index_add_(0, target, message);
}

}    // namespace

Tensor factors_of_harmonics(const Tensor &b, int64_t degrees)
{
  if (degrees == 1) return b.unsqueeze(1);
  Tensor mask = at::zeros_symint({degrees, b.sym_size(1)}, b.options());
  for (int64_t l = 0; l < degrees; ++l)
    mask.select(0, l).slice(0, l * l, (l + 1) * (l + 1)).fill_(1);
  return b.unsqueeze(1) * mask;
}

Tensor cp_message_cpu(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  if (is_large(b)) return call_with_factors(u, b, w, TDN_EDGE_ARGUMENTS);
  return message_sum({{u, b, w}}, SortedEdges(TDN_EDGE_ARGUMENTS), false);
}

Tensor cp_message_transposed_cpu(const Tensor &g, const Tensor &b, const Tensor &w,
                                 TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  const SortedEdges edges(TDN_EDGE_ARGUMENTS);
  if (!is_scalar(b)) return message_sum({{g, b, w}}, edges, true);
  const Tensor u = at::empty({neighbor_ptr.numel() - 1, 1, w.size(2)}, g.options());
  return std::get<0>(adjoint_sum({{g, u, b, w, true, false, false}}, edges, true, false, false));
}

std::tuple<Tensor, Tensor> cp_message_edges_cpu(const Tensor &g, const Tensor &u, const Tensor &b,
                                                const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  const auto [unused, grad_b, grad_w] =
      adjoint_sum({{g, u, b, w, false, need_b, need_w}}, SortedEdges(TDN_EDGE_ARGUMENTS), false,
                  need_b, need_w);
  return {grad_b, grad_w};
}

std::tuple<Tensor, Tensor, Tensor> cp_message_adjoint_cpu(const Tensor &g, const Tensor &u,
                                                          const Tensor &b, const Tensor &w,
                                                          TDN_EDGE_PARAMETERS, bool need_b,
                                                          bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  return adjoint_sum({{g, u, b, w, true, need_b, need_w}}, SortedEdges(TDN_EDGE_ARGUMENTS), true,
                     need_b, need_w);
}

MessageSecond cp_message_second_cpu(const std::optional<Tensor> &v_u,
                                    const std::optional<Tensor> &v_b,
                                    const std::optional<Tensor> &v_w, const Tensor &g,
                                    const Tensor &u, const Tensor &b, const Tensor &w,
                                    TDN_EDGE_PARAMETERS, bool need_g, bool need_u, bool need_b,
                                    bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  if (v_u) check_all(g, *v_u, b, w, TDN_EDGE_ARGUMENTS);
  if (v_b) check_all(g, u, *v_b, w, TDN_EDGE_ARGUMENTS);
  if (v_w) check_all(g, u, b, *v_w, TDN_EDGE_ARGUMENTS);
  const SortedEdges edges(TDN_EDGE_ARGUMENTS);
  std::vector<Term> terms;
  std::vector<EdgeTerm> edge_terms;
  if (v_u) {
    terms.emplace_back(*v_u, b, w);
    edge_terms.emplace_back(g, *v_u, b, w, false, need_b, need_w);
  }
  if (v_b) {
    terms.emplace_back(u, *v_b, w);
    edge_terms.emplace_back(g, u, *v_b, w, need_u, false, need_w);
  }
  if (v_w) {
    terms.emplace_back(u, b, *v_w);
    edge_terms.emplace_back(g, u, b, *v_w, need_u, need_b, false);
  }
  const auto zeros = [](const Tensor &x, bool needed) {
    return needed ? at::zeros(x.sizes(), x.options()) : at::empty({0}, x.options());
  };
  if (terms.empty())
    return {zeros(g, need_g), zeros(u, need_u), zeros(b, need_b), zeros(w, need_w)};
  const auto [grad_u, grad_b, grad_w] = adjoint_sum(edge_terms, edges, need_u, need_b, need_w);
  return {need_g ? message_sum(terms, edges, false) : zeros(g, false), grad_u, grad_b, grad_w};
}

Tensor cp_message_tensor(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  if (is_scalar(b)) return call_with_factors(u, b, w, TDN_EDGE_ARGUMENTS);
  return gather_tensor(u, b, w, center_ptr, center, neighbor);
}

Tensor cp_message_transposed_tensor(const Tensor &g, const Tensor &b, const Tensor &w,
                                    TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  return gather_tensor(g, b, w, neighbor_ptr, neighbor, center);
}

std::tuple<Tensor, Tensor> cp_message_edges_tensor(const Tensor &g, const Tensor &u,
                                                   const Tensor &b, const Tensor &w,
                                                   TDN_EDGE_PARAMETERS, bool need_b, bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  const Tensor product = g.index_select(0, center).mul_(u.index_select(0, neighbor));
  return {need_b ? at::bmm(w, product.transpose(1, 2)) : at::empty({0}, b.options()),
          need_w ? at::bmm(b, product) : at::empty({0}, w.options())};
}

std::tuple<Tensor, Tensor, Tensor> cp_message_adjoint_tensor(const Tensor &g, const Tensor &u,
                                                             const Tensor &b, const Tensor &w,
                                                             TDN_EDGE_PARAMETERS, bool need_b,
                                                             bool need_w)
{
  // operators, not functions: a device may have kernels of its own for these two
  static const auto transposed =
      find_operator<decltype(cp_message_transposed_cpu)>("tdn::cp_message_transposed");
  static const auto edges = find_operator<decltype(cp_message_edges_cpu)>("tdn::cp_message_edges");
  const auto [grad_b, grad_w] = edges.call(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  return {transposed.call(g, b, w, TDN_EDGE_ARGUMENTS), grad_b, grad_w};
}

Tensor cp_message_meta(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  return at::empty_symint({center_ptr.sym_size(0) - 1, b.sym_size(-1), w.sym_size(2)},
                          u.options());
}

Tensor cp_message_transposed_meta(const Tensor &g, const Tensor &b, const Tensor &w,
                                  TDN_EDGE_PARAMETERS)
{
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
  return at::empty_symint({neighbor_ptr.sym_size(0) - 1,
                           is_scalar(b) ? c10::SymInt(1) : b.sym_size(2), w.sym_size(2)},
                          g.options());
}

std::tuple<Tensor, Tensor> cp_message_edges_meta(const Tensor &g, const Tensor &u, const Tensor &b,
                                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                 bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  return {need_b ? at::empty_symint(b.sym_sizes(), b.options()) : at::empty({0}, b.options()),
          need_w ? at::empty_symint(w.sym_sizes(), w.options()) : at::empty({0}, w.options())};
}

std::tuple<Tensor, Tensor, Tensor> cp_message_adjoint_meta(const Tensor &g, const Tensor &u,
                                                           const Tensor &b, const Tensor &w,
                                                           TDN_EDGE_PARAMETERS, bool need_b,
                                                           bool need_w)
{
  const auto [grad_b, grad_w] =
      cp_message_edges_meta(g, u, b, w, TDN_EDGE_ARGUMENTS, need_b, need_w);
  return {at::empty_symint(u.sym_sizes(), u.options()), grad_b, grad_w};
}

MessageSecond cp_message_second_meta(const std::optional<Tensor> &, const std::optional<Tensor> &,
                                     const std::optional<Tensor> &, const Tensor &g,
                                     const Tensor &u, const Tensor &b, const Tensor &w,
                                     TDN_EDGE_PARAMETERS, bool need_g, bool need_u, bool need_b,
                                     bool need_w)
{
  check_all(g, u, b, w, TDN_EDGE_ARGUMENTS);
  const auto like = [](const Tensor &x, bool needed) {
    return needed ? at::empty_symint(x.sym_sizes(), x.options()) : at::empty({0}, x.options());
  };
  return {like(g, need_g), like(u, need_u), like(b, need_b), like(w, need_w)};
}

}    // namespace tdn
