#include "component_linear/component_linear.h"
#include "convolution/convolution.h"
#include "cp_message/cp_message.h"
#include "cp_message/cp_message_kernels.h"
#include "degree_linear/degree_linear.h"
#include "edge_geometry/edge_geometry.h"
#include "edge_matrix/edge_matrix.h"
#include "sorted_edges/sorted_edges.h"
#include "exchange/exchange_ops.h"
#include "gate/gate.h"
#include "node_product/node_product.h"
#include "pairs/pairs.h"
#include "radial/radial.h"

#include <torch/library.h>

#include <memory>
#include <vector>

namespace tdn {
namespace {

using torch::Library;

#define TDN_EDGE_SCHEMA                                                                          \
  "Tensor centre, Tensor neighbour, Tensor centre_ptr, Tensor transpose, Tensor neighbour_ptr"

#define TDN_CONVOLUTION_SCHEMA                                                                   \
  "Tensor x, Tensor edge_vec, Tensor species, Tensor table, float r_max, float stretch, "         \
  "Tensor input1, Tensor input2, Tensor output, " TDN_EDGE_SCHEMA
#define TDN_DENSITY_SCHEMA                                                                       \
  "Tensor edge_vec, Tensor species, Tensor table, float r_max, float stretch, "                   \
  "int num_channels, " TDN_EDGE_SCHEMA

#define TDN_NODE_PRODUCT_SCHEMA                                                                  \
  "Tensor m, Tensor species, Tensor linear, Tensor left, Tensor right, Tensor weight, "          \
  "Tensor input1, Tensor input2, Tensor output"

#define TDN_PAIR_SCHEMA                                                                          \
  "Tensor positions, Tensor center, Tensor ptr, Tensor other, Tensor node, Tensor species"

#define TDN_RADIAL_SCHEMA                                                                        \
  "Tensor r, Tensor pair, Tensor scale, Tensor weights, int[] widths, float r_max, int power, "  \
  "float silu_scale"

std::string cpu_capability() { return kernel_table().name; }

void define(Library &library)
{
  library.def("sort_edges(Tensor edge_index, SymInt num_centres, SymInt num_nodes)"
              " -> (Tensor centre_ptr, Tensor transpose, Tensor neighbour_ptr)");
  library.def("cp_message(Tensor u, Tensor b, Tensor w, " TDN_EDGE_SCHEMA ") -> Tensor");
  library.def("cp_message_transposed(Tensor g, Tensor b, Tensor w, " TDN_EDGE_SCHEMA
              ") -> Tensor");
  library.def("cp_message_edges(Tensor g, Tensor u, Tensor b, Tensor w, " TDN_EDGE_SCHEMA
              ", bool need_b, bool need_w) -> (Tensor, Tensor)");
  library.def("cp_message_adjoint(Tensor g, Tensor u, Tensor b, Tensor w, " TDN_EDGE_SCHEMA
              ", bool need_b, bool need_w) -> (Tensor, Tensor, Tensor)");
  library.def("cp_message_second(Tensor? v_u, Tensor? v_b, Tensor? v_w, Tensor g, Tensor u,"
              " Tensor b, Tensor w, " TDN_EDGE_SCHEMA ", bool need_g, bool need_u, bool need_b,"
              " bool need_w) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("convolution(" TDN_CONVOLUTION_SCHEMA ") -> Tensor");
  library.def("convolution_adjoint(Tensor g, " TDN_CONVOLUTION_SCHEMA
              ", bool need_x) -> (Tensor, Tensor)");
  library.def("density(" TDN_DENSITY_SCHEMA ") -> Tensor");
  library.def("density_adjoint(Tensor g, " TDN_DENSITY_SCHEMA ") -> Tensor");
  library.def("node_product(" TDN_NODE_PRODUCT_SCHEMA ") -> Tensor");
  library.def("node_product_adjoint(Tensor g, " TDN_NODE_PRODUCT_SCHEMA
              ", bool need_weights) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("node_product_second(Tensor v, Tensor g, " TDN_NODE_PRODUCT_SCHEMA
              ", bool need_weights) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("gate(Tensor x, Tensor weight, float scale) -> Tensor");
  library.def("gate_with_scalars(Tensor x, Tensor weight, float scale) -> (Tensor, Tensor)");
  library.def("gate_adjoint(Tensor g, Tensor x, Tensor weight, float scale, bool need_weight)"
              " -> (Tensor, Tensor)");
  library.def("gate_second(Tensor v, Tensor g, Tensor x, Tensor weight, float scale,"
              " bool need_weight) -> (Tensor, Tensor, Tensor)");
  library.def("degree_linear(Tensor x, Tensor weight) -> Tensor");
  library.def("degree_linear_weight(Tensor x, Tensor g) -> Tensor");
  library.def("edge_geometry(Tensor edge_vec, int l_max, ScalarType dtype) -> (Tensor, Tensor)");
  library.def("edge_geometry_adjoint(Tensor? g_r, Tensor? g_y, Tensor edge_vec, int l_max)"
              " -> Tensor");
  library.def("edge_geometry_second(Tensor v, Tensor? g_r, Tensor? g_y, Tensor edge_vec,"
              " int l_max, ScalarType dtype, bool need_vec) -> (Tensor, Tensor, Tensor)");
  library.def("radial(" TDN_RADIAL_SCHEMA ") -> Tensor");
  library.def("radial_slope(" TDN_RADIAL_SCHEMA ") -> (Tensor, Tensor)");
  library.def("radial_adjoint(Tensor? g, Tensor? g_slope, " TDN_RADIAL_SCHEMA
              ") -> (Tensor, Tensor)");
  library.def("row_dot(Tensor x, Tensor y) -> Tensor");
  library.def("row_dot_adjoint(Tensor g, Tensor x, Tensor y, bool need_x, bool need_y)"
              " -> (Tensor, Tensor)");
  library.def("component_linear(Tensor x, Tensor matrix) -> Tensor");
  library.def("edge_product(Tensor source, Tensor target, Tensor matrix, Tensor w, " TDN_EDGE_SCHEMA
              ") -> (Tensor, Tensor)");
  library.def("edge_product_adjoint(Tensor g_scalars, Tensor g_rest, Tensor source, Tensor target,"
              " Tensor matrix, Tensor w, " TDN_EDGE_SCHEMA ", bool need_nodes, bool need_matrix,"
              " bool need_w) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("edge_message(Tensor scalars, Tensor rest, Tensor matrix, Tensor w, Tensor centre,"
              " Tensor centre_ptr) -> Tensor");
  library.def("edge_message_adjoint(Tensor g, Tensor scalars, Tensor rest, Tensor matrix, Tensor w,"
              " Tensor centre, Tensor centre_ptr, bool need_features, bool need_matrix,"
              " bool need_w) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("exchange(Tensor x, SymInt num_all) -> Tensor");
  library.def("exchange_reverse(Tensor x, SymInt num_local) -> Tensor");
  library.def("cpu_capability() -> str", cpu_capability);
}

void define_pairs(Library &library)
{
  library.def("find_pairs(Tensor positions, int num_centers, float distance)"
              " -> (Tensor ptr, Tensor other, Tensor reached)");
  library.def("pair_sums(" TDN_PAIR_SCHEMA ", bool per_atom) -> Tensor[]");
  library.def("pair_row_size(Tensor like, int rank, int channels) -> int");
  library.def("pair_project(Tensor x, Tensor matrix, int first, Tensor(a!) out) -> ()");
  library.def("pair_forward(" TDN_PAIR_SCHEMA ", Tensor[] edge, Tensor[] weights,"
              " Tensor gate_before, float[] numbers, Tensor u, Tensor z_before,"
              " Tensor next_input1, Tensor(a!) m, Tensor(b!) z, Tensor(c!) energy,"
              " Tensor(d!) u_next, Tensor(e!) features) -> ()");
  library.def("pair_last(" TDN_PAIR_SCHEMA ", Tensor[] edge, Tensor[] weights,"
              " Tensor gate_before, float[] numbers, Tensor scale, Tensor u, Tensor z_before,"
              " Tensor(a!) energy, Tensor(b!) kept, Tensor(c!) ranked, Tensor(d!) gradients,"
              " Tensor(e!)[] sums) -> ()");
  library.def("pair_backward(" TDN_PAIR_SCHEMA ", Tensor[] edge, Tensor[] below,"
              " Tensor[] weights, float[] numbers, Tensor scale, Tensor u, Tensor ranked,"
              " Tensor m, Tensor z, Tensor kept, Tensor(a!) kept_below, Tensor(b!) ranked_below,"
              " Tensor(c!) gradients, Tensor(d!)[] sums) -> ()");
  library.def("pair_density_ghosts(" TDN_PAIR_SCHEMA ", Tensor table, float[] numbers,"
              " Tensor gradients, Tensor(a!)[] sums) -> ()");
  library.def("pair_zbl(" TDN_PAIR_SCHEMA ", Tensor number, Tensor pair_cutoff,"
              " Tensor(a!) energy, Tensor(b!)[] sums) -> ()");
  library.def("exchanges(Tensor like) -> bool");
  library.def("exchange_(Tensor(a!) x, int num_local) -> ()");
}

void implement_pairs(Library &library)
{
  library.impl("find_pairs", find_pairs_cpu);
  library.impl("pair_sums", pair_sums_cpu);
  library.impl("pair_row_size", pair_row_size_cpu);
  library.impl("pair_project", pair_project_cpu);
  library.impl("pair_forward", pair_forward_cpu);
  library.impl("pair_last", pair_last_cpu);
  library.impl("pair_backward", pair_backward_cpu);
  library.impl("pair_density_ghosts", pair_density_ghosts_cpu);
  library.impl("pair_zbl", pair_zbl_cpu);
  library.impl("exchanges", exchanges);
  library.impl("exchange_", exchange_in_place);
}

void implement_cpu(Library &library)
{
  library.impl("sort_edges", sort_edges_cpu);
  library.impl("cp_message", cp_message_cpu);
  library.impl("cp_message_transposed", cp_message_transposed_cpu);
  library.impl("cp_message_edges", cp_message_edges_cpu);
  library.impl("cp_message_adjoint", cp_message_adjoint_cpu);
  library.impl("cp_message_second", cp_message_second_cpu);
  library.impl("convolution", convolution_cpu);
  library.impl("convolution_adjoint", convolution_adjoint_cpu);
  library.impl("density", density_cpu);
  library.impl("density_adjoint", density_adjoint_cpu);
  library.impl("node_product", node_product_cpu);
  library.impl("node_product_adjoint", node_product_adjoint_cpu);
  library.impl("node_product_second", node_product_second_cpu);
  library.impl("degree_linear", degree_linear_cpu);
  library.impl("gate", gate_cpu);
  library.impl("gate_adjoint", gate_adjoint_cpu);
  library.impl("gate_second", gate_second_cpu);
  library.impl("degree_linear_weight", degree_linear_weight_cpu);
  library.impl("edge_geometry", edge_geometry_cpu);
  library.impl("edge_geometry_adjoint", edge_geometry_adjoint_cpu);
  library.impl("edge_geometry_second", edge_geometry_second_cpu);
  library.impl("radial_slope", radial_slope_cpu);
  library.impl("radial_adjoint", radial_adjoint_cpu);
  library.impl("row_dot", row_dot_cpu);
  library.impl("row_dot_adjoint", row_dot_adjoint_cpu);
  library.impl("component_linear", component_linear_cpu);
  library.impl("edge_product", edge_product_cpu);
  library.impl("edge_product_adjoint", edge_product_adjoint_cpu);
  library.impl("edge_message", edge_message_cpu);
  library.impl("edge_message_adjoint", edge_message_adjoint_cpu);
}

#ifdef TDN_CUDA
void implement_cuda(Library &library)
{
  library.impl("convolution", convolution_cuda);
  library.impl("convolution_adjoint", convolution_adjoint_cuda);
  library.impl("cp_message", cp_message_cuda);
  library.impl("cp_message_transposed", cp_message_transposed_cuda);
  library.impl("cp_message_edges", cp_message_edges_cuda);
  library.impl("density", density_cuda);
  library.impl("density_adjoint", density_adjoint_cuda);
  library.impl("edge_product", edge_product_cuda);
  library.impl("edge_product_adjoint", edge_product_adjoint_cuda);
  library.impl("edge_message", edge_message_cuda);
  library.impl("edge_message_adjoint", edge_message_adjoint_cuda);
  library.impl("gate", gate_cuda);
  library.impl("gate_adjoint", gate_adjoint_cuda);
  library.impl("gate_second", gate_second_cuda);
  library.impl("node_product", node_product_cuda);
  library.impl("node_product_adjoint", node_product_adjoint_cuda);
  library.impl("node_product_second", node_product_second_cuda);
  library.impl("find_pairs", find_pairs_cuda);
  library.impl("pair_sums", pair_sums_cuda);
  library.impl("pair_row_size", pair_row_size_cuda);
  library.impl("pair_project", pair_project_cuda);
  library.impl("pair_forward", pair_forward_cuda);
  library.impl("pair_last", pair_last_cuda);
  library.impl("pair_backward", pair_backward_cuda);
  library.impl("pair_density_ghosts", pair_density_ghosts_cuda);
  library.impl("pair_zbl", pair_zbl_cuda);
  library.impl("exchanges", exchanges);
  library.impl("exchange_", exchange_in_place_cuda);
}
#endif

// Every other device.
void implement_tensor(Library &library)
{
  library.impl("sort_edges", sort_edges_tensor);
  library.impl("cp_message", cp_message_tensor);
  library.impl("cp_message_transposed", cp_message_transposed_tensor);
  library.impl("cp_message_edges", cp_message_edges_tensor);
  library.impl("cp_message_adjoint", cp_message_adjoint_tensor);
  library.impl("convolution", convolution_tensor);
  library.impl("density", density_tensor);
  library.impl("node_product", node_product_tensor);
  library.impl("degree_linear", degree_linear_tensor);
  library.impl("gate", gate_tensor);
  library.impl("gate_with_scalars", gate_with_scalars);
  library.impl("degree_linear_weight", degree_linear_weight_tensor);
  library.impl("edge_geometry", edge_geometry_tensor);
  library.impl("radial", radial_tensor);
  library.impl("component_linear", component_linear_tensor);
  library.impl("edge_product", edge_product_tensor);
  library.impl("edge_product_adjoint", edge_product_adjoint_tensor);
  library.impl("edge_message", edge_message_tensor);
  library.impl("edge_message_adjoint", edge_message_adjoint_tensor);
  library.impl("exchange", exchange_rows);
  library.impl("exchange_reverse", exchange_reverse_rows);
}

void implement_meta(Library &library)
{
  library.impl("sort_edges", sort_edges_meta);
  library.impl("cp_message", cp_message_meta);
  library.impl("cp_message_transposed", cp_message_transposed_meta);
  library.impl("cp_message_edges", cp_message_edges_meta);
  library.impl("cp_message_adjoint", cp_message_adjoint_meta);
  library.impl("cp_message_second", cp_message_second_meta);
  library.impl("convolution", convolution_meta);
  library.impl("convolution_adjoint", convolution_adjoint_meta);
  library.impl("density", density_meta);
  library.impl("density_adjoint", density_adjoint_meta);
  library.impl("node_product", node_product_meta);
  library.impl("node_product_adjoint", node_product_adjoint_meta);
  library.impl("node_product_second", node_product_second_meta);
  library.impl("degree_linear", degree_linear_meta);
  library.impl("gate", gate_meta);
  library.impl("gate_with_scalars", gate_with_scalars_meta);
  library.impl("gate_adjoint", gate_adjoint_meta);
  library.impl("gate_second", gate_second_meta);
  library.impl("degree_linear_weight", degree_linear_weight_meta);
  library.impl("edge_geometry", edge_geometry_meta);
  library.impl("edge_geometry_adjoint", edge_geometry_adjoint_meta);
  library.impl("edge_geometry_second", edge_geometry_second_meta);
  library.impl("radial_slope", radial_slope_meta);
  library.impl("radial_adjoint", radial_adjoint_meta);
  library.impl("row_dot", row_dot_meta);
  library.impl("row_dot_adjoint", row_dot_adjoint_meta);
  library.impl("component_linear", component_linear_meta);
  library.impl("edge_product", edge_product_meta);
  library.impl("edge_product_adjoint", edge_product_adjoint_meta);
  library.impl("edge_message", edge_message_meta);
  library.impl("edge_message_adjoint", edge_message_adjoint_meta);
  library.impl("exchange", exchange_meta);
  library.impl("exchange_reverse", exchange_reverse_meta);
}

void implement_autograd(Library &library)
{
  library.impl("cp_message", cp_message_autograd);
  library.impl("cp_message_transposed", cp_message_transposed_autograd);
  library.impl("cp_message_edges", cp_message_edges_autograd);
  library.impl("cp_message_adjoint", cp_message_adjoint_autograd);
  library.impl("convolution", convolution_autograd);
  library.impl("density", density_autograd);
  library.impl("node_product", node_product_autograd);
  library.impl("node_product_adjoint", node_product_adjoint_autograd);
  library.impl("degree_linear", degree_linear_autograd);
  library.impl("gate", gate_autograd);
  library.impl("gate_with_scalars", gate_with_scalars_autograd);
  library.impl("gate_adjoint", gate_adjoint_autograd);
  library.impl("degree_linear_weight", degree_linear_weight_autograd);
  library.impl("edge_geometry", edge_geometry_autograd);
  library.impl("edge_geometry_adjoint", edge_geometry_adjoint_autograd);
  library.impl("radial", radial_autograd);
  library.impl("component_linear", component_linear_autograd);
  library.impl("edge_product", edge_product_autograd);
  library.impl("edge_product_adjoint", edge_product_adjoint_autograd);
  library.impl("edge_message", edge_message_autograd);
  library.impl("edge_message_adjoint", edge_message_adjoint_autograd);
  library.impl("exchange", exchange_autograd);
  library.impl("exchange_reverse", exchange_reverse_autograd);
}

// Not TORCH_LIBRARY, which ends the process where the operators exist already: a program may hold
// Python's reference operators, or a second copy of this library, before this one is loaded.
struct Registration {
  Registration()
  {
    if (c10::Dispatcher::singleton().findSchema({"tdn::cp_message", ""})) {
      TORCH_WARN("the operators of tdn are registered already; libtdn_ops.so leaves them in place");
      return;
    }
    Library &names = add(Library::FRAGMENT, std::nullopt);
    define(names);
    define_pairs(names);
    Library &cpu = add(Library::IMPL, c10::DispatchKey::CPU);
    implement_cpu(cpu);
    implement_pairs(cpu);
#ifdef TDN_CUDA
    implement_cuda(add(Library::IMPL, c10::DispatchKey::CUDA));
#endif
    implement_tensor(add(Library::IMPL, c10::DispatchKey::CompositeExplicitAutograd));
    implement_meta(add(Library::IMPL, c10::DispatchKey::Meta));
    implement_autograd(add(Library::IMPL, c10::DispatchKey::Autograd));
  }

  Library &add(Library::Kind kind, std::optional<c10::DispatchKey> key)
  {
    libraries.push_back(std::make_unique<Library>(kind, "tdn", key, __FILE__, __LINE__));
    return *libraries.back();
  }

  std::vector<std::unique_ptr<Library>> libraries;
};

const Registration registration;

}    // namespace
}    // namespace tdn
