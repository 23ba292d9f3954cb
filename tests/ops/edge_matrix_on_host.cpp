// edge_product and edge_message for a GPU, with their kernels, compiled for the host: the operators
// of tdn_edges_on_host do on tensors of the CPU what those of tdn do on tensors of a GPU.

#include "edge_matrix/edge_matrix_cuda.cpp"

#include "edge_matrix/edge_matrix_cuda_kernels.cu"

#include <torch/library.h>

namespace tdn {

// What shapes and devices other than a GPU's need; not called here.
TwoTensors edge_product_tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                               TDN_EDGE_PARAMETERS)
{
  TORCH_CHECK(false, "no kernels");
}
FourTensors edge_product_adjoint_tensor(const Tensor &, const Tensor &, const Tensor &,
                                        const Tensor &, const Tensor &, const Tensor &,
                                        TDN_EDGE_PARAMETERS, bool, bool, bool)
{
  TORCH_CHECK(false, "no kernels");
}
Tensor edge_message_tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                           const Tensor &, const Tensor &)
{
  TORCH_CHECK(false, "no kernels");
}
FourTensors edge_message_adjoint_tensor(const Tensor &, const Tensor &, const Tensor &,
                                        const Tensor &, const Tensor &, const Tensor &,
                                        const Tensor &, bool, bool, bool)
{
  TORCH_CHECK(false, "no kernels");
}
}    // namespace tdn

#define TDN_EDGES                                                                                \
  "Tensor centre, Tensor neighbour, Tensor centre_ptr, Tensor transpose, Tensor neighbour_ptr"

TORCH_LIBRARY(tdn_edges_on_host, library)
{
  library.def("set_max_blocks(int blocks) -> ()",
              [](int64_t blocks) { tdn::cuda::max_blocks = blocks; });
  library.def("edge_product(Tensor source, Tensor target, Tensor matrix, Tensor w, " TDN_EDGES
              ") -> (Tensor, Tensor)",
              tdn::edge_product_cuda);
  library.def("edge_product_adjoint(Tensor g_scalars, Tensor g_rest, Tensor source, Tensor target,"
              " Tensor matrix, Tensor w, " TDN_EDGES ", bool need_nodes, bool need_matrix,"
              " bool need_w) -> (Tensor, Tensor, Tensor, Tensor)",
              tdn::edge_product_adjoint_cuda);
  library.def("edge_message(Tensor scalars, Tensor rest, Tensor matrix, Tensor w, Tensor centre,"
              " Tensor centre_ptr) -> Tensor",
              tdn::edge_message_cuda);
  library.def("edge_message_adjoint(Tensor g, Tensor scalars, Tensor rest, Tensor matrix, Tensor w,"
              " Tensor centre, Tensor centre_ptr, bool need_features, bool need_matrix,"
              " bool need_w) -> (Tensor, Tensor, Tensor, Tensor)",
              tdn::edge_message_adjoint_cuda);
}
