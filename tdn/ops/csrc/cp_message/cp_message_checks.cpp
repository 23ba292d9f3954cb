#include "cp_message_checks.h"

namespace tdn {
namespace {

// `x` belongs to the nodes of `ptr`.
void check_nodes(const char *name, const Tensor &x, const c10::SymInt &rows, const Tensor &w,
                 const Tensor &ptr)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && x.sym_size(0) == ptr.sym_size(0) - 1 && x.sym_size(1) == rows &&
                        x.sym_size(2) == w.sym_size(2),
                    "cp_message: ", name, " must be [", ptr.sym_size(0) - 1, ", ", rows, ", ",
                    w.sym_size(2), "] (atoms, R of b or one for harmonics, C of w), found ",
                    x.sym_sizes());
}

void check_edges(const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  for (const Tensor &x : {center, neighbor, center_ptr, by_neighbor, neighbor_ptr}) {
    TORCH_CHECK_VALUE(x.dim() == 1 && x.scalar_type() == at::kLong,
                      "cp_message: edges must be int64 vectors from sort_edges, found ",
                      x.sym_sizes(), " of ", x.scalar_type());
    TORCH_CHECK_VALUE(x.device() == b.device(), "cp_message: edges are on ", x.device(),
                      ", b is on ", b.device());
  }
  const c10::SymInt num_edges = center.sym_size(0);
  TORCH_CHECK_VALUE(
      neighbor.sym_size(0) == num_edges && by_neighbor.sym_size(0) == num_edges &&
          center_ptr.sym_size(0) >= 1 && neighbor_ptr.sym_size(0) >= 1,
      "cp_message: edges do not fit together; take them from sort_edges");
  TORCH_CHECK_VALUE((b.dim() == 3 || is_scalar(b)) && b.sym_size(0) == num_edges,
                    "cp_message: b must be [", num_edges, ", L, R], or harmonics [", num_edges,
                    ", D], found ", b.sym_sizes());
  TORCH_CHECK_VALUE(w.dim() == 3 && w.sym_size(0) == num_edges &&
                        (is_scalar(b) || w.sym_size(1) == b.sym_size(1)),
                    "cp_message: w must be [", num_edges, ", L, C] with the L of b, found ",
                    w.sym_sizes());
  if (is_scalar(b)) {
    const c10::SymInt &degrees = w.sym_size(1);
    int64_t l_max = 0;
    while (b.sym_size(1) > (l_max + 1) * (l_max + 1)) ++l_max;
    TORCH_CHECK_VALUE(b.sym_size(1) == (l_max + 1) * (l_max + 1) &&
                          (degrees == 1 || degrees == l_max + 1),
                      "cp_message: harmonics [E, D] need D = (l_max + 1)^2 and weights of one or ",
                      "l_max + 1 degrees, found D = ", b.sym_size(1), " and ", degrees, " degrees");
  }
}

void check_kind(const char *name, const Tensor &x, const Tensor &b)
{
  TORCH_CHECK_VALUE(x.scalar_type() == b.scalar_type() && x.device() == b.device(), "cp_message: ",
                    name, " is ", x.scalar_type(), " on ", x.device(), ", b is ", b.scalar_type(),
                    " on ", b.device(), "; they must agree");
}

}    // namespace

void check_message(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edges(b, w, TDN_EDGE_ARGUMENTS);
  check_nodes("u", u, is_scalar(b) ? c10::SymInt(1) : b.sym_size(2), w, neighbor_ptr);
  check_kind("u", u, b);
  check_kind("w", w, b);
}

void check_transposed(const Tensor &g, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS)
{
  check_edges(b, w, TDN_EDGE_ARGUMENTS);
  check_nodes("the gradient", g, b.sym_size(-1), w, center_ptr);
  check_kind("the gradient", g, b);
  check_kind("w", w, b);
}

void check_all(const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w,
               TDN_EDGE_PARAMETERS)
{
  check_message(u, b, w, TDN_EDGE_ARGUMENTS);
  check_transposed(g, b, w, TDN_EDGE_ARGUMENTS);
}

}    // namespace tdn
