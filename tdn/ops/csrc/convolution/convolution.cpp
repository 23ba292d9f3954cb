#include "convolution.h"

#include "convolution_kernels.h"
#include "sorted_edges/sorted_edges.h"
#include "common/parallel.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <vector>

namespace tdn {
namespace {

template <typename T> const ConvolutionKernels<T> &convolution_kernels();
template <> const ConvolutionKernels<float> &convolution_kernels<float>()
{
  return convolution_table().float32;
}
template <> const ConvolutionKernels<double> &convolution_kernels<double>()
{
  return convolution_table().float64;
}
template <typename T> const DensityKernels<T> &density_kernels();
template <> const DensityKernels<float> &density_kernels<float>()
{
  return density_table().float32;
}
template <> const DensityKernels<double> &density_kernels<double>()
{
  return density_table().float64;
}

// Square root of a number of components, less one; -1 where it is not a square.
int64_t degree_of(int64_t components)
{
  int64_t l = 0;
  while ((l + 1) * (l + 1) < components) ++l;
  return (l + 1) * (l + 1) == components ? l : -1;
}

int64_t blocks_of(int64_t channels, int64_t width) { return (channels + width - 1) / width; }

void check_common(const char *name, const Tensor &edge_vec, const Tensor &species,
                  const Tensor &table, double r_max, double stretch, c10::SymInt channels,
                  TDN_EDGE_PARAMETERS)
{
  TORCH_CHECK_VALUE(edge_vec.dim() == 2 && edge_vec.sym_size(0) == center.sym_size(0) &&
                        edge_vec.sym_size(1) == 3 && edge_vec.scalar_type() == at::kDouble,
                    name, ": edge_vec must be float64 [", center.sym_size(0), ", 3], found ",
                    edge_vec.sym_sizes(), " of ", edge_vec.scalar_type());
  TORCH_CHECK_VALUE(species.dim() == 1 && species.scalar_type() == at::kLong &&
                        species.sym_size(0) == neighbor_ptr.sym_size(0) - 1,
                    name, ": species must be int64 [", neighbor_ptr.sym_size(0) - 1, "], found ",
                    species.sym_sizes(), " of ", species.scalar_type());
  const bool shaped = table.dim() == 7 && table.size(0) == table.size(1) && table.size(0) > 0 &&
      table.size(2) > 0 && table.size(4) > 0 && table.size(5) > 0 && table.size(6) == table_block;
  TORCH_CHECK_VALUE(shaped && table.size(3) == (channels + table_block - 1) / table_block, name,
                    ": the table must be [S, S, K, ", (channels + table_block - 1) / table_block,
                    ", L, order + 1, ", table_block, "], found ", table.sizes());
  TORCH_CHECK_VALUE(r_max > 0 && stretch > 0, name,
                    ": r_max and stretch must be positive, found ", r_max, " and ", stretch);
  for (const Tensor &t : {edge_vec, species, center, neighbor, center_ptr, by_neighbor,
                          neighbor_ptr})
    TORCH_CHECK_VALUE(t.device() == table.device(), name, ": all tensors must be on one device, ",
                      "found ", t.device(), " and ", table.device());
}

void check_species(const char *name, const Tensor &species, int64_t num_species)
{
  const int64_t *p = species.const_data_ptr<int64_t>();
  for (int64_t n = 0; n < species.numel(); ++n)
    TORCH_CHECK_VALUE(p[n] >= 0 && p[n] < num_species, name, ": species must lie in 0..",
                      num_species - 1, ", found ", p[n]);
}

// Contiguous copies of what the kernels read, and the structures that point to them.
struct EdgeTensors {
  Tensor vec, species, table, center, neighbor, center_ptr, by_neighbor, neighbor_ptr;

  EdgeTensors(const Tensor &edge_vec, const Tensor &species, const Tensor &table,
              TDN_EDGE_PARAMETERS) :
      vec(edge_vec.contiguous()),
      species(species.contiguous()), table(table.contiguous()), center(center.contiguous()),
      neighbor(neighbor.contiguous()), center_ptr(center_ptr.contiguous()),
      by_neighbor(by_neighbor.contiguous()), neighbor_ptr(neighbor_ptr.contiguous())
  {
  }

  void check(const char *name) const
  {
    check_edge_indices(name, center, neighbor, center_ptr, by_neighbor, neighbor_ptr);
    TORCH_CHECK_VALUE(num_centers() <= num_nodes(), name, ": centers are the first of the nodes, ",
                      "found ", num_centers(), " centers and ", num_nodes(), " nodes");
    check_species(name, species, table.size(0));
  }

  template <typename T> EdgeList<T> list(double r_max, double stretch, bool of_neighbors) const
  {
    return {vec.const_data_ptr<double>(),
            species.const_data_ptr<int64_t>(),
            center.const_data_ptr<int64_t>(),
            neighbor.const_data_ptr<int64_t>(),
            (of_neighbors ? neighbor_ptr : center_ptr).const_data_ptr<int64_t>(),
            of_neighbors ? by_neighbor.const_data_ptr<int64_t>() : nullptr,
            {table.const_data_ptr<T>(), table.size(0), table.size(2), table.size(4),
             table.size(5) - 1, r_max, stretch}};
  }

  int64_t num_centers() const { return center_ptr.numel() - 1; }
  int64_t num_nodes() const { return neighbor_ptr.numel() - 1; }
};

// Run a kernel over nodes, each thread with scratch memory of its own.
template <typename T, typename Arguments>
void run(void (*kernel)(const Arguments &, T *, int64_t, int64_t), const Arguments &arguments,
         int64_t scratch_size, int64_t num_nodes, int64_t work_per_edge)
{
  constexpr size_t alignment = 64;
  parallel_nodes(arguments.edges.ptr, num_nodes, work_per_edge, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(scratch_size + alignment / sizeof(T));
    void *start = scratch.data();
    size_t space = scratch.size() * sizeof(T);
    kernel(arguments, static_cast<T *>(std::align(alignment, 1, start, space)), begin, end);
  });
}

// Features [n, rows, channels] to rank space in blocks of channels [n, blocks, rank, width].
template <typename T>
Tensor project(const Tensor &x, const Tensor &matrix)
{
  const auto &kernels = convolution_kernels<T>();
  const int64_t rank = matrix.size(1), blocks = blocks_of(x.size(2), kernels.width);
  Tensor out = at::empty({x.size(0), blocks, rank, kernels.width}, x.options());
  const ProjectArguments<T> arguments{x.size(1), x.size(2), blocks, rank, x.const_data_ptr<T>(),
                                      matrix.const_data_ptr<T>(), out.mutable_data_ptr<T>()};
  at::parallel_for(0, x.size(0), grain(x.size(1) * x.size(2) * rank),
                   [&](int64_t begin, int64_t end) { kernels.project(arguments, begin, end); });
  return out;
}

// Factors with as many ranks as the kernels like, zero beyond their own.
template <typename T> Tensor pad_rank(const Tensor &matrix)
{
  const int64_t rank = matrix.size(1);
  const int64_t padded = convolution_kernels<T>().padded_rank(rank);
  return at::constant_pad_nd(matrix, {0, padded - rank}).contiguous();
}

template <typename T> Tensor pad_row(const Tensor &matrix)
{
  const int64_t rank = matrix.size(1);
  const int64_t padded = convolution_kernels<T>().padded_row(rank);
  return at::constant_pad_nd(matrix, {0, padded - rank}).contiguous();
}

}    // namespace

void check_convolution(TDN_CONVOLUTION_PARAMETERS)
{
  TORCH_CHECK_VALUE(x.dim() == 3 && input1.dim() == 2 && input2.dim() == 2 && output.dim() == 2 &&
                        x.sym_size(0) == neighbor_ptr.sym_size(0) - 1 &&
                        x.sym_size(1) == input1.sym_size(0) &&
                        input2.size(1) == input1.size(1) && output.size(1) == input1.size(1),
                    "convolution: expected x [", neighbor_ptr.sym_size(0) - 1,
                    ", D_in, C], input1 [D_in, R], input2 [D, R], output [D_out, R], found ",
                    x.sym_sizes(), ", ", input1.sizes(), ", ", input2.sizes(), ", ",
                    output.sizes());
  check_common("convolution", edge_vec, species, table, r_max, stretch, x.sym_size(2),
               TDN_EDGE_ARGUMENTS);
  const int64_t l_max = degree_of(input2.size(0));
  TORCH_CHECK_VALUE(l_max >= 0 && l_max <= max_l_max &&
                        (table.size(4) == l_max + 1 || table.size(4) == 1),
                    "convolution: input2 [D, R] and the table's degrees L do not fit together: D = ",
                    input2.size(0), ", L = ", table.size(4));
  for (const Tensor &t : {x, input1, input2, output})
    TORCH_CHECK_VALUE(t.scalar_type() == table.scalar_type() && t.device() == table.device(),
                      "convolution: x, the factors and the table must agree, found ",
                      t.scalar_type(), " on ", t.device(), " and ", table.scalar_type(), " on ",
                      table.device());
}

void check_density(TDN_DENSITY_PARAMETERS)
{
  check_common("density", edge_vec, species, table, r_max, stretch, num_channels,
               TDN_EDGE_ARGUMENTS);
  TORCH_CHECK_VALUE(table.size(4) <= max_l_max + 1, "density: at most ", max_l_max + 1,
                    " degrees, found ", table.size(4));
}

Tensor convolution_cpu(TDN_CONVOLUTION_PARAMETERS)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  const EdgeTensors edges(edge_vec, species, table, TDN_EDGE_ARGUMENTS);
  edges.check("convolution");
  const Tensor features = x.contiguous();
  const int64_t channels = x.size(2), rows_out = output.size(0), num_centers = edges.num_centers();
  Tensor out = at::empty({num_centers, rows_out, channels}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "convolution", [&] {
    const auto &kernels = convolution_kernels<scalar_t>();
    const Tensor in1 = pad_rank<scalar_t>(input1), in2 = pad_row<scalar_t>(input2);
    const Tensor last = pad_rank<scalar_t>(output), u = project<scalar_t>(features, in1);
    ConvolutionArguments<scalar_t> a{};
    a.l_max = degree_of(input2.size(0));
    a.rank = in1.size(1);
    a.channels = channels;
    a.blocks = blocks_of(channels, kernels.width);
    a.rows_out = rows_out;
    a.edges = edges.list<scalar_t>(r_max, stretch, false);
    a.harmonics = in2.const_data_ptr<scalar_t>();
    a.output = last.const_data_ptr<scalar_t>();
    a.u = u.const_data_ptr<scalar_t>();
    a.out = out.mutable_data_ptr<scalar_t>();
    run(kernels.forward, a, kernels.scratch_size(a.l_max, table.size(4), a.rank, a.blocks),
        num_centers, a.rank * channels * (table.size(4) + 1));
  });
  return out;
}

std::tuple<Tensor, Tensor> convolution_adjoint_cpu(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                   bool need_x)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  const EdgeTensors edges(edge_vec, species, table, TDN_EDGE_ARGUMENTS);
  edges.check("convolution_adjoint");
  TORCH_CHECK_VALUE(g.dim() == 3 && g.size(0) == edges.num_centers() &&
                        g.size(1) == output.size(0) && g.size(2) == x.size(2) &&
                        g.scalar_type() == x.scalar_type(),
                    "convolution_adjoint: the gradient must be [", edges.num_centers(), ", ",
                    output.size(0), ", ", x.size(2), "] of ", x.scalar_type(), ", found ",
                    g.sizes(), " of ", g.scalar_type());
  const Tensor features = x.contiguous(), gradient = g.contiguous();
  const int64_t channels = x.size(2);
  Tensor grad_x = need_x ? at::empty(x.sizes(), x.options()) : at::empty({0}, x.options());
  Tensor grad_vec = at::empty(edge_vec.sizes(), edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "convolution_adjoint", [&] {
    const auto &kernels = convolution_kernels<scalar_t>();
    const Tensor in1 = pad_rank<scalar_t>(input1), in2 = pad_row<scalar_t>(input2);
    const Tensor u = project<scalar_t>(features, in1);
    const Tensor ranked = project<scalar_t>(gradient, pad_rank<scalar_t>(output));
    ConvolutionArguments<scalar_t> a{};
    a.l_max = degree_of(input2.size(0));
    a.rank = in1.size(1);
    a.channels = channels;
    a.blocks = blocks_of(channels, kernels.width);
    a.rows_out = x.size(1);
    a.edges = edges.list<scalar_t>(r_max, stretch, true);
    a.harmonics = in2.const_data_ptr<scalar_t>();
    a.output = in1.const_data_ptr<scalar_t>();
    a.u = u.const_data_ptr<scalar_t>();
    a.g = ranked.const_data_ptr<scalar_t>();
    a.out = need_x ? grad_x.mutable_data_ptr<scalar_t>() : nullptr;
    a.grad_vec = grad_vec.mutable_data_ptr<double>();
    run(kernels.adjoint, a, kernels.scratch_size(a.l_max, table.size(4), a.rank, a.blocks),
        edges.num_nodes(), a.rank * channels * (3 * table.size(4) + 2));
  });
  return {grad_x, grad_vec};
}

Tensor density_cpu(TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  const EdgeTensors edges(edge_vec, species, table, TDN_EDGE_ARGUMENTS);
  edges.check("density");
  const int64_t degrees = table.size(4), num_centers = edges.num_centers();
  Tensor out = at::empty({num_centers, degrees * degrees, num_channels}, table.options());
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "density", [&] {
    const auto &kernels = density_kernels<scalar_t>();
    DensityArguments<scalar_t> a{};
    a.l_max = degrees - 1;
    a.channels = num_channels;
    a.blocks = blocks_of(num_channels, convolution_kernels<scalar_t>().width);
    a.edges = edges.list<scalar_t>(r_max, stretch, false);
    a.out = out.mutable_data_ptr<scalar_t>();
    run(kernels.forward, a,
        kernels.scratch_size(a.l_max, degrees, degrees * degrees, a.blocks), num_centers,
        num_channels * degrees * (degrees + table.size(5)));
  });
  return out;
}

Tensor density_adjoint_cpu(const Tensor &g, TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  const EdgeTensors edges(edge_vec, species, table, TDN_EDGE_ARGUMENTS);
  edges.check("density_adjoint");
  const int64_t degrees = table.size(4), components = degrees * degrees;
  TORCH_CHECK_VALUE(g.dim() == 3 && g.size(0) == edges.num_centers() && g.size(1) == components &&
                        g.size(2) == num_channels && g.scalar_type() == table.scalar_type(),
                    "density_adjoint: the gradient must be [", edges.num_centers(), ", ",
                    components, ", ", num_channels, "] of ", table.scalar_type(), ", found ",
                    g.sizes(), " of ", g.scalar_type());
  const Tensor gradient = g.contiguous();
  Tensor grad_vec = at::empty(edge_vec.sizes(), edge_vec.options());
  AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "density_adjoint", [&] {
    const auto &kernels = density_kernels<scalar_t>();
    const int64_t width = convolution_kernels<scalar_t>().width;
    DensityArguments<scalar_t> a{};
    a.l_max = degrees - 1;
    a.channels = num_channels;
    a.blocks = blocks_of(num_channels, width);
    // [centers, D, blocks, width] -> [centers, blocks, D, width]
    const Tensor blocked =
        at::constant_pad_nd(gradient, {0, a.blocks * width - num_channels})
            .view({edges.num_centers(), components, a.blocks, width})
            .transpose(1, 2)
            .contiguous();
    a.edges = edges.list<scalar_t>(r_max, stretch, false);
    a.g = blocked.const_data_ptr<scalar_t>();
    a.grad_vec = grad_vec.mutable_data_ptr<double>();
    run(kernels.adjoint, a,
        kernels.scratch_size(a.l_max, degrees, components, a.blocks), edges.num_centers(),
        num_channels * degrees * (3 * degrees + 2 * table.size(5)));
  });
  return grad_vec;
}

Tensor convolution_meta(TDN_CONVOLUTION_PARAMETERS)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  return at::empty_symint({center_ptr.sym_size(0) - 1, output.sym_size(0), x.sym_size(2)},
                          x.options());
}

std::tuple<Tensor, Tensor> convolution_adjoint_meta(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                    bool need_x)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  return {need_x ? at::empty_symint(x.sym_sizes(), x.options()) : at::empty({0}, x.options()),
          at::empty_symint(edge_vec.sym_sizes(), edge_vec.options())};
}

Tensor density_meta(TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  return at::empty_symint(
      {center_ptr.sym_size(0) - 1, table.size(4) * table.size(4), num_channels}, table.options());
}

Tensor density_adjoint_meta(const Tensor &g, TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  return at::empty_symint(edge_vec.sym_sizes(), edge_vec.options());
}

}    // namespace tdn
