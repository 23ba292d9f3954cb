// The message of a Clebsch-Gordan product in CP form, and the kernels its derivatives need.
//
// All are partial derivatives of one multilinear form, sum over edges e = (i, j) of
//   F(g, u, b, w) = sum_{l,r,c} g[i,r,c] u[j,r,c] b[e,l,r] w[e,l,c],
// so the same three functions serve derivatives of every order. Two more do at once what first and
// second derivatives, as training on forces needs them, would do in several passes over the edges.

#ifndef TDN_CP_MESSAGE_H
#define TDN_CP_MESSAGE_H

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#define TDN_EDGE_PARAMETERS                                                                      \
  const at::Tensor &center, const at::Tensor &neighbor, const at::Tensor &center_ptr,           \
      const at::Tensor &by_neighbor, const at::Tensor &neighbor_ptr
#define TDN_EDGE_ARGUMENTS center, neighbor, center_ptr, by_neighbor, neighbor_ptr

namespace tdn {

using at::Tensor;

// One implementation: of the CPU, of tensor operations (any device), of shapes alone (tracing).
// message:    dF/dg [num_centers, R, C]
// transposed: dF/du [num_nodes, R, C]
// edges:      (dF/db [E, L, R], dF/dw [E, L, C]); empty [0] where not needed
// adjoint:    (dF/du, dF/db, dF/dw); the last two empty [0] where not needed
// second:     gradients by g, u, b, w of the form's derivative along (v_u, v_b, v_w), directions
//             that may be missing: F(g, v_u, b, w) + F(g, u, v_b, w) + F(g, u, b, v_w); empty [0]
//             where not needed
#define TDN_DECLARE_CP_MESSAGE(suffix)                                                           \
  Tensor cp_message_##suffix(const Tensor &u, const Tensor &b, const Tensor &w,                  \
                             TDN_EDGE_PARAMETERS);                                               \
  Tensor cp_message_transposed_##suffix(const Tensor &g, const Tensor &b, const Tensor &w,       \
                                        TDN_EDGE_PARAMETERS);                                    \
  std::tuple<Tensor, Tensor> cp_message_edges_##suffix(                                          \
      const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS,   \
      bool need_b, bool need_w);                                                                 \
  std::tuple<Tensor, Tensor, Tensor> cp_message_adjoint_##suffix(                                \
      const Tensor &g, const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS,   \
      bool need_b, bool need_w);

TDN_DECLARE_CP_MESSAGE(cpu)
TDN_DECLARE_CP_MESSAGE(tensor)
TDN_DECLARE_CP_MESSAGE(meta)
TDN_DECLARE_CP_MESSAGE(autograd)

// Refuses what does not fit together; `b` may be harmonics [E, D] of scalars u [nodes, 1, C].
void check_message(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS);

// Harmonics [E, D] as factors [E, L, D], each component in the row of its degree: what has no kernels
// of its own for harmonics takes them as factors of rank D, with u expanded to [nodes, D, C].
Tensor factors_of_harmonics(const Tensor &b, int64_t degrees);

using MessageSecond = std::tuple<Tensor, Tensor, Tensor, Tensor>;
MessageSecond cp_message_second_cpu(const std::optional<Tensor> &v_u,
                                    const std::optional<Tensor> &v_b,
                                    const std::optional<Tensor> &v_w, const Tensor &g,
                                    const Tensor &u, const Tensor &b, const Tensor &w,
                                    TDN_EDGE_PARAMETERS, bool need_g, bool need_u, bool need_b,
                                    bool need_w);
MessageSecond cp_message_second_meta(const std::optional<Tensor> &v_u,
                                     const std::optional<Tensor> &v_b,
                                     const std::optional<Tensor> &v_w, const Tensor &g,
                                     const Tensor &u, const Tensor &b, const Tensor &w,
                                     TDN_EDGE_PARAMETERS, bool need_g, bool need_u, bool need_b,
                                     bool need_w);

// On a GPU, in libraries that are built with CUDA.
Tensor cp_message_cuda(const Tensor &u, const Tensor &b, const Tensor &w, TDN_EDGE_PARAMETERS);
Tensor cp_message_transposed_cuda(const Tensor &g, const Tensor &b, const Tensor &w,
                                  TDN_EDGE_PARAMETERS);
std::tuple<Tensor, Tensor> cp_message_edges_cuda(const Tensor &g, const Tensor &u, const Tensor &b,
                                                 const Tensor &w, TDN_EDGE_PARAMETERS, bool need_b,
                                                 bool need_w);

#undef TDN_DECLARE_CP_MESSAGE

}    // namespace tdn

#endif
