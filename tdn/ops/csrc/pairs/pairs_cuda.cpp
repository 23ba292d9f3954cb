#include "pairs.h"

#include "node_tile.h"
#include "pair_cuda_kernels.h"
#include "pair_list_tensors.h"
#include "common/current_queue.h"
#include "common/find_operator.h"
#include "exchange/exchange.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>

// The layers on a GPU. Convolutions are kernels of their own; nodes go through those of the other
// operators and through matrix products, in parts, so that what these need in between stays small.
// Values of indices are checked by the kernels, since looking at them here would wait for the GPU.

namespace tdn {

int64_t pair_nodes_at_once = 1 << 14;    // tests lower it

namespace {

using c10::cuda::CUDAGuard;

struct DeviceList : PairListTensors {
  CUDAGuard guard;
  at::AutoDispatchBelowADInplaceOrView below;    // no derivatives are recorded

  DeviceList(const char *name, TDN_PAIR_PARAMETERS) :
      PairListTensors(name, TDN_PAIR_ARGUMENTS), guard(positions.device())
  {
  }

  // function(first, count) for all centers, some at a time
  template <typename F> void each_part(const F &function) const
  {
    for (int64_t first = 0; first < num_centers(); first += pair_nodes_at_once)
      function(first, std::min(pair_nodes_at_once, num_centers() - first));
  }
};

template <typename T> const T *read(const Tensor &x)
{
  return x.defined() && x.numel() > 0 ? x.const_data_ptr<T>() : nullptr;
}

template <typename T> T *written(const Tensor &x)
{
  return x.defined() && x.numel() > 0 ? x.mutable_data_ptr<T>() : nullptr;
}

cuda::CenterSums center_sums(at::TensorList sums)
{
  return {written<double>(sums[0]), written<double>(sums[1]), written<double>(sums[3])};
}

// x [n, rows_in, C] -> out [n, rows_out, C] with matrix [rows_in, rows_out], or its transpose.
void project(const Tensor &x, const Tensor &matrix, bool transposed, const Tensor &out)
{
  if (x.size(0) == 0 || x.size(2) == 0) return;
  const Tensor from = x.contiguous(), factors = matrix.contiguous();
  const int64_t columns = factors.size(1);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "pairs", [&] {
    const cuda::PairProjection<scalar_t> a{from.size(0),
                                           from.size(1),
                                           factors.size(transposed ? 0 : 1),
                                           from.size(2),
                                           transposed ? 1 : columns,
                                           transposed ? columns : 1,
                                           from.const_data_ptr<scalar_t>(),
                                           factors.const_data_ptr<scalar_t>(),
                                           out.mutable_data_ptr<scalar_t>()};
    cuda::check_launch(cuda::launch_projection(a, cuda::current_queue(from)));
  });
}

// The edges of a layer.
struct Edges {
  bool first;    // its neighbors are known by their species
  Tensor table, input1, harmonics, output;
  int64_t l_max, components, rank, channels;
  double r_max, stretch;

  Edges(at::TensorList edge, int64_t channels, at::ArrayRef<double> numbers) :
      first(edge.size() == 1), table(edge[0].contiguous()), channels(channels), r_max(numbers[0]),
      stretch(numbers[1])
  {
    if (first) {
      components = rank = table.size(4) * table.size(4);
    } else {
      input1 = edge[1].contiguous();
      harmonics = edge[2].contiguous();
      output = edge[3].contiguous();
      components = harmonics.size(0);
      rank = harmonics.size(1);
    }
    l_max = 0;
    while ((l_max + 1) * (l_max + 1) < components) ++l_max;
  }

  template <typename T> cuda::PairWalk<T> walk(const DeviceList &list) const
  {
    cuda::PairWalk<T> a{};
    a.l_max = l_max;
    a.rank = rank;
    a.channels = channels;
    a.pairs = list.list<T>({table.const_data_ptr<T>(), table.size(0), table.size(2), table.size(4),
                            table.size(5) - 1, r_max, stretch});
    a.num_rows = list.positions.size(0);
    a.num_pairs = list.other.numel();
    a.count = list.num_centers();
    a.harmonics = first ? nullptr : harmonics.const_data_ptr<T>();
    return a;
  }

  Tensor empty(int64_t count, int64_t rows) const
  {
    return at::empty({count, rows, channels}, table.options());
  }

  // [count, D, C] of the centers from `begin` on
  Tensor messages(const DeviceList &list, const Tensor &u, int64_t begin, int64_t count) const
  {
    const Tensor ranked = empty(count, rank);
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.first = begin;
      a.count = count;
      a.u = first ? nullptr : read<scalar_t>(u);
      a.out = written<scalar_t>(ranked);
      cuda::check_launch(cuda::launch_pairs(a, cuda::current_queue(table)));
    });
    if (first) return ranked;
    const Tensor out = empty(count, output.size(0));
    project(ranked, output, true, out);
    return out;
  }

  // Gradient of the features [count, D, C] of the centers from `begin` on, and forces.
  Tensor adjoint(const DeviceList &list, const Tensor &u, const Tensor &ranked, int64_t begin,
                 int64_t count, at::TensorList sums) const
  {
    const Tensor gradient = empty(count, rank);
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.first = begin;
      a.count = count;
      a.u = read<scalar_t>(u);
      a.g = read<scalar_t>(ranked);
      a.out = written<scalar_t>(gradient);
      a.outgoing = true;
      a.incoming_end = list.num_nodes();
      a.sums = center_sums(sums);
      cuda::check_launch(cuda::launch_pairs_adjoint(a, cuda::current_queue(table)));
    });
    const Tensor out = empty(count, input1.size(0));
    project(gradient, input1, true, out);
    return out;
  }

  // Forces by a first layer from the gradients of the messages of all nodes, or of ghosts alone.
  void density_adjoint(const DeviceList &list, const Tensor &g, bool from_ghosts,
                       at::TensorList sums) const
  {
    AT_DISPATCH_FLOATING_TYPES(table.scalar_type(), "pairs", [&] {
      auto a = walk<scalar_t>(list);
      a.g = read<scalar_t>(g);
      a.outgoing = !from_ghosts;
      a.incoming_begin = from_ghosts ? list.num_centers() : 0;
      a.incoming_end = from_ghosts ? list.num_nodes() : list.num_centers();
      a.sums = center_sums(sums);
      cuda::check_launch(cuda::launch_pairs_adjoint(a, cuda::current_queue(table)));
    });
  }
};

// The rows [first, first + count) of an array [>= n, ...].
Tensor part(const Tensor &x, int64_t first, int64_t count) { return x.narrow(0, first, count); }

// y = x w in each degree, for matrices [L, C, C'] whose columns may be padded.
Tensor linear(const Tensor &w, int64_t columns, const Tensor &x)
{
  int64_t degrees = 1;
  while (degrees * degrees < x.size(1)) ++degrees;
  static const auto op =
      find_operator<Tensor(const Tensor &, const Tensor &)>("tdn::degree_linear");
  return op.call(x, w.slice(0, 0, degrees).slice(2, 0, columns));
}

Tensor like_scalars(const Tensor &w, int64_t columns, const Tensor &x)    // [n, C] -> [n, columns]
{
  return at::mm(x, w.select(0, 0).slice(1, 0, columns));
}

// silu on the scalars, sigmoids of them on higher degrees; scale 0: features pass as they are.
struct GateOfLayer {
  Tensor weight;    // [1, C, padded (L - 1) C]
  double scale;

  Tensor matrix(const Tensor &x) const
  {
    int64_t degrees = 1;
    while (degrees * degrees < x.size(1)) ++degrees;
    return weight.select(0, 0).slice(1, 0, (degrees - 1) * x.size(2));
  }

  Tensor forward(const Tensor &z) const
  {
    if (scale == 0) return z;
    static const auto op =
        find_operator<Tensor(const Tensor &, const Tensor &, double)>("tdn::gate");
    return op.call(z, matrix(z), scale);
  }

  // [n, D, C] -> [n, 1, C]
  Tensor scalars(const Tensor &z) const { return forward(z.narrow(1, 0, 1)); }

  Tensor adjoint(const Tensor &dx, const Tensor &z) const
  {
    if (scale == 0) return dx;
    static const auto op =
        find_operator<std::tuple<Tensor, Tensor>(const Tensor &, const Tensor &, const Tensor &,
                                                 double, bool)>("tdn::gate_adjoint");
    return std::get<0>(op.call(dx, z, matrix(z), scale, false));
  }
};

// A layer at some nodes. Constants are those of node_tile.h.
struct NodeLayer {
  at::TensorList weights;
  int64_t channels, components_out;
  GateOfLayer gate;
  double silu_scale;
  Tensor input1, input2, output;    // of the product, [D, R]

  NodeLayer(at::TensorList weights, at::ArrayRef<double> numbers) :
      weights(weights), channels(weights[LINEAR].size(2)),
      components_out(weights[LINEAR].size(1) * weights[LINEAR].size(1)),
      gate{weights[GATE], numbers[2]}, silu_scale(numbers[3]),
      input1(weights[INPUT1].t().contiguous()), input2(weights[INPUT2].t().contiguous()),
      output(weights[OUTPUT].t().contiguous())
  {
  }

  Tensor mix(int weight, const Tensor &x) const { return linear(weights[weight], channels, x); }

  // before the gate; m: mixed messages
  Tensor product(const Tensor &m, const Tensor &species) const
  {
    using Product = Tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                           const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                           const Tensor &);
    static const auto op = find_operator<Product>("tdn::node_product");
    return mix(MIX_OUT, op.call(m, species, weights[LINEAR], weights[LEFT], weights[RIGHT],
                                weights[WEIGHT], input1, input2, output));
  }

  // gradient of the messages
  Tensor adjoint(const Tensor &dz, const Tensor &m, const Tensor &species) const
  {
    using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
    using Adjoint = Gradients(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                              const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                              const Tensor &, const Tensor &, bool);
    static const auto op = find_operator<Adjoint>("tdn::node_product_adjoint");
    const auto found =
        op.call(mix(MIX_OUT_T, dz), m, species, weights[LINEAR], weights[LEFT], weights[RIGHT],
                weights[WEIGHT], input1, input2, output, false);
    return mix(MIX_IN_T, std::get<0>(found));
  }

  Tensor residual_scale(const Tensor &species) const
  {
    return weights[RESIDUAL_SCALE].index_select(0, species);
  }

  Tensor residual(const Tensor &kept, const Tensor &species) const
  {
    return mix(RESIDUAL_MIX, residual_scale(species).mul_(kept));
  }

  Tensor residual_adjoint(const Tensor &dz, const Tensor &species) const
  {
    return mix(RESIDUAL_MIX_T, dz).mul_(residual_scale(species));
  }

  bool has_hidden() const { return weights[READOUT_MIX].numel() > 0; }

  // scalars [n, C]; energies are added in float64
  void add_energy(const Tensor &scalars, const Tensor &energy) const
  {
    const Tensor &w = weights[READOUT];
    Tensor values = scalars;
    if (has_hidden()) {
      const Tensor x = like_scalars(weights[READOUT_MIX], w.numel(), scalars);
      values = at::sigmoid(x).mul_(x).mul_(silu_scale);
    }
    Tensor out = energy;
    out.add_(at::mv(values.to(at::kDouble), w.to(at::kDouble)));
  }

  // [n, C]: factor [n] of each node times the derivative of its energy
  Tensor slope(const Tensor &scalars, const Tensor &factor) const
  {
    const Tensor &w = weights[READOUT];
    const Tensor outer = factor.unsqueeze(1) * w;
    if (!has_hidden()) return outer;
    const Tensor x = like_scalars(weights[READOUT_MIX], w.numel(), scalars), s = at::sigmoid(x);
    const Tensor slopes = s * (1 + x * (1 - s)) * outer * silu_scale;
    return like_scalars(weights[READOUT_MIX_T], channels, slopes);
  }
};

// m and z of some nodes from their messages, the residual included.
std::tuple<Tensor, Tensor> layer_forward(bool first_layer, const NodeLayer &node,
                                         const GateOfLayer &gate_before, const Tensor &z_before,
                                         const Tensor &messages, const Tensor &species)
{
  const Tensor m = node.mix(MIX_IN, messages);
  Tensor z = node.product(m, species);
  if (!first_layer) {
    const bool scalars_only = node.components_out == 1;
    const Tensor kept =
        scalars_only ? gate_before.scalars(z_before) : gate_before.forward(z_before);
    z.add_(node.residual(kept, species));
  }
  return {m, z};
}

Tensor energy_factors(const Tensor &scale, const Tensor &species, const Tensor &like)
{
  return scale.index_select(0, species).to(like.scalar_type());
}

Tensor rows_of(const Tensor &x, const Edges &edges)    // [n_all, row size] -> [n_all, R, C]
{
  return x.view({x.size(0), edges.rank, edges.channels});
}

// Where the gradients of some nodes' messages go: to ghosts, and into rank space or `first`.
void pass_on(const Edges &edges, const Tensor &da, int64_t begin, const Tensor &ranked,
             const Tensor &gradients, const Tensor &first)
{
  const int64_t count = da.size(0);
  if (gradients.numel() > 0) part(gradients, begin, count).copy_(da);
  if (!edges.first)
    project(da, edges.output, false, part(rows_of(ranked, edges), begin, count));
  else if (gradients.numel() == 0)
    part(first, begin, count).copy_(da);
}

// Gradients of the messages of a first layer: those for ghosts, or memory for them.
Tensor first_gradients(const Edges &edges, const DeviceList &list, const Tensor &gradients)
{
  if (!edges.first || gradients.numel() > 0) return gradients;
  return edges.empty(list.num_centers(), edges.components);
}

}    // namespace

std::vector<Tensor> pair_sums_cuda(TDN_PAIR_PARAMETERS, bool per_atom)
{
  const DeviceList list("pair_sums", TDN_PAIR_ARGUMENTS);
  const int64_t n = list.num_centers(), atoms = per_atom ? n : 0;
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, positions.options()); };
  // each center has a virial of its own, half of every edge at each of its ends
  const Tensor virial = zeros({n, 9});
  return {zeros({1, n, 3}), virial, virial.narrow(0, 0, atoms).unsqueeze(0), zeros({1, atoms, 9})};
}

int64_t pair_row_size_cuda(const Tensor &, int64_t rank, int64_t channels)
{
  return rank * channels;
}

void pair_project_cuda(const Tensor &x, const Tensor &matrix, int64_t first, const Tensor &out)
{
  const CUDAGuard guard(x.device());
  const int64_t count = x.size(0) - first;
  const Tensor rows = out.view({out.size(0), matrix.size(1), x.size(2)});
  project(part(x, first, count), matrix, false, part(rows, first, count));
}

void pair_forward_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                       const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &u,
                       const Tensor &z_before, const Tensor &next_input1, const Tensor &m,
                       const Tensor &z, const Tensor &energy, const Tensor &u_next,
                       const Tensor &features)
{
  const DeviceList list("pair_forward", TDN_PAIR_ARGUMENTS);
  const NodeLayer layer(weights, numbers);
  const Edges edges(edge, layer.channels, numbers);
  const GateOfLayer before{gate_before, numbers[2]};
  const Tensor u_rows = u_next.view({u_next.size(0), next_input1.size(1), layer.channels});
  list.each_part([&](int64_t first, int64_t count) {
    const Tensor kinds = part(species, first, count);
    const Tensor z_part = edges.first ? z_before : part(z_before, first, count);
    const auto [mixed, raised] = layer_forward(edges.first, layer, before, z_part,
                                               edges.messages(list, u, first, count), kinds);
    part(m, first, count).copy_(mixed);
    part(z, first, count).copy_(raised);
    const Tensor x = layer.gate.forward(raised);
    layer.add_energy(x.select(1, 0), part(energy, first, count));
    const Tensor h = layer.mix(NEXT_MIX, x);
    if (features.numel() > 0) part(features, first, count).copy_(h);
    project(h, next_input1, false, part(u_rows, first, count));
  });
}

void pair_last_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                    const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &scale,
                    const Tensor &u, const Tensor &z_before, const Tensor &energy,
                    const Tensor &kept, const Tensor &ranked, const Tensor &gradients,
                    at::TensorList sums)
{
  const DeviceList list("pair_last", TDN_PAIR_ARGUMENTS);
  const NodeLayer layer(weights, numbers);
  const Edges edges(edge, layer.channels, numbers);
  const GateOfLayer before{gate_before, numbers[2]};
  const Tensor first_da = first_gradients(edges, list, gradients);
  list.each_part([&](int64_t first, int64_t count) {
    const Tensor kinds = part(species, first, count);
    const Tensor z_part = edges.first ? z_before : part(z_before, first, count);
    const auto [m, z] = layer_forward(edges.first, layer, before, z_part,
                                      edges.messages(list, u, first, count), kinds);
    const Tensor scalars = layer.gate.scalars(z).select(1, 0);
    layer.add_energy(scalars, part(energy, first, count));
    const Tensor slope = layer.slope(scalars, energy_factors(scale, kinds, z));
    const Tensor dz = layer.gate.adjoint(slope.unsqueeze(1), z);
    if (!edges.first) part(kept, first, count).copy_(layer.residual_adjoint(dz, kinds));
    pass_on(edges, layer.adjoint(dz, m, kinds), first, ranked, gradients, first_da);
  });
  if (edges.first) edges.density_adjoint(list, first_da, false, sums);
}

void pair_backward_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList below,
                        at::TensorList weights, at::ArrayRef<double> numbers, const Tensor &scale,
                        const Tensor &u, const Tensor &ranked, const Tensor &m, const Tensor &z,
                        const Tensor &kept, const Tensor &kept_below, const Tensor &ranked_below,
                        const Tensor &gradients, at::TensorList sums)
{
  const DeviceList list("pair_backward", TDN_PAIR_ARGUMENTS);
  const NodeLayer layer(weights, numbers);
  const Edges edges(edge, layer.channels, numbers), edges_below(below, layer.channels, numbers);
  const Tensor first_da = first_gradients(edges_below, list, gradients);
  list.each_part([&](int64_t first, int64_t count) {
    const Tensor kinds = part(species, first, count), before_gate = part(z, first, count);
    const Tensor dx =
        layer.mix(NEXT_MIX_T, edges.adjoint(list, u, ranked, first, count, sums));
    const Tensor scalars = layer.gate.scalars(before_gate).select(1, 0);
    dx.select(1, 0).add_(layer.slope(scalars, energy_factors(scale, kinds, z)));
    dx.narrow(1, 0, kept.size(1)).add_(part(kept, first, count));
    const Tensor dz = layer.gate.adjoint(dx, before_gate);
    if (!edges_below.first)
      part(kept_below, first, count).copy_(layer.residual_adjoint(dz, kinds));
    pass_on(edges_below, layer.adjoint(dz, part(m, first, count), kinds), first, ranked_below,
            gradients, first_da);
  });
  if (edges_below.first) edges_below.density_adjoint(list, first_da, false, sums);
}

void pair_density_ghosts_cuda(TDN_PAIR_PARAMETERS, const Tensor &table,
                              at::ArrayRef<double> numbers, const Tensor &gradients,
                              at::TensorList sums)
{
  const DeviceList list("pair_density_ghosts", TDN_PAIR_ARGUMENTS);
  if (list.num_nodes() == list.num_centers()) return;
  Edges(table, gradients.size(2), numbers).density_adjoint(list, gradients, true, sums);
}

void pair_zbl_cuda(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                   const Tensor &energy, at::TensorList sums)
{
  const DeviceList list("pair_zbl", TDN_PAIR_ARGUMENTS);
  const cuda::PairRepulsion a{list.list<double>({}),
                              positions.size(0),
                              other.numel(),
                              number.numel(),
                              number.const_data_ptr<double>(),
                              pair_cutoff.const_data_ptr<double>(),
                              written<double>(energy),
                              center_sums(sums)};
  cuda::check_launch(cuda::launch_repulsion(a, cuda::current_queue(positions)));
}

// Rows go through memory of the host that the GPU can read and write by itself.
void exchange_in_place_cuda(const Tensor &x, int64_t num_local)
{
  Exchange *const transport = get_exchange();
  const int64_t num_all = x.size(0);
  if (!transport) {
    TORCH_CHECK_VALUE(num_local == num_all, "exchange_: found ", num_all - num_local,
                      " ghost atoms, but no transport between processes is set");
    return;
  }
  TORCH_CHECK_VALUE(x.is_contiguous(), "exchange_: x must be contiguous");
  const CUDAGuard guard(x.device());
  Tensor host = at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(x.is_cuda()));
  part(host, 0, num_local).copy_(part(x, 0, num_local));
  int64_t width = 1;    // numbers per row, also for no rows
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  transport->forward(host.mutable_data_ptr(), num_local, num_all, width,
                     x.scalar_type() == at::kDouble);
  part(x, num_local, num_all - num_local)
      .copy_(part(host, num_local, num_all - num_local), /*non_blocking=*/true);
}

}    // namespace tdn
