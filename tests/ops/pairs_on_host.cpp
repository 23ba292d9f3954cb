// The operators of the pair list for a GPU, with its kernels, compiled for the host: the operators
// of tdn_on_host do on tensors of the CPU what those of tdn do on tensors of a GPU.

#include "exchange/exchange_cuda.cpp"
#include "pairs/pair_cuda_layers.cpp"
#include "pairs/pair_search_cuda.cpp"
#include "pairs/pairs_cuda.cpp"
#include "pairs/repulsion_cuda.cpp"

#include "pairs/pair_cuda_density.cu"
#include "pairs/pair_cuda_kernels.cu"
#include "pairs/pair_cuda_nodes.cu"
#include "pairs/pair_cuda_search.cu"

#include <torch/library.h>

namespace {

void set_limits(int64_t blocks, int64_t nodes)
{
  tdn::cuda::max_blocks = blocks;
  tdn::pair_nodes_at_once = nodes;
}

}    // namespace

#define TDN_LIST                                                                                 \
  "(Tensor positions, Tensor center, Tensor ptr, Tensor other, Tensor node, Tensor species, "

TORCH_LIBRARY(tdn_on_host, library)
{
  library.def("set_limits(int blocks, int nodes) -> ()", set_limits);
  library.def("find_pairs(Tensor positions, int num_centers, float distance)"
              " -> (Tensor ptr, Tensor other, Tensor reached)",
              tdn::find_pairs_cuda);
  library.def("pair_sums" TDN_LIST "bool per_atom) -> Tensor[]", tdn::pair_sums_cuda);
  library.def("pair_row_size(Tensor like, int rank, int channels) -> int",
              tdn::pair_row_size_cuda);
  library.def("pair_project(Tensor x, Tensor matrix, int first, Tensor(a!) out) -> ()",
              tdn::pair_project_cuda);
  library.def("pair_forward" TDN_LIST
              "Tensor[] edge, Tensor[] weights, Tensor gate_before, float[] numbers, Tensor u,"
              " Tensor z_before, Tensor next_input1, Tensor(a!) m, Tensor(b!) z, Tensor(c!) energy,"
              " Tensor(d!) u_next, Tensor(e!) features) -> ()",
              tdn::pair_forward_cuda);
  library.def("pair_last" TDN_LIST
              "Tensor[] edge, Tensor[] weights, Tensor gate_before, float[] numbers, Tensor scale,"
              " Tensor u, Tensor z_before, Tensor(a!) energy, Tensor(b!) kept, Tensor(c!) ranked,"
              " Tensor(d!) gradients, Tensor(e!)[] sums) -> ()",
              tdn::pair_last_cuda);
  library.def("pair_backward" TDN_LIST
              "Tensor[] edge, Tensor[] below, Tensor[] weights, float[] numbers, Tensor scale,"
              " Tensor u, Tensor ranked, Tensor m, Tensor z, Tensor kept, Tensor(a!) kept_below,"
              " Tensor(b!) ranked_below, Tensor(c!) gradients, Tensor(d!)[] sums) -> ()",
              tdn::pair_backward_cuda);
  library.def("pair_density_ghosts" TDN_LIST
              "Tensor table, float[] numbers, Tensor gradients, Tensor(a!)[] sums) -> ()",
              tdn::pair_density_ghosts_cuda);
  library.def("pair_zbl" TDN_LIST
              "Tensor number, Tensor pair_cutoff, Tensor(a!) energy, Tensor(b!)[] sums) -> ()",
              tdn::pair_zbl_cuda);
  library.def("exchange_(Tensor(a!) x, int num_local) -> ()", tdn::exchange_in_place_cuda);
}
