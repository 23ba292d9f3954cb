#include "pairs.h"

#include "node_tile.h"
#include "pair_cuda_tensors.h"
#include "common/find_operator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/sigmoid.h>

#include <tuple>

// The layers on a GPU. Convolutions are kernels of their own; nodes go through those of the other
// operators and through matrix products, in parts, so that what these need in between stays small.

namespace tdn {
namespace {

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

}    // namespace tdn
