#include "pair_tensors.h"

#include <ATen/Dispatch.h>

namespace tdn {
namespace {

// Call function(first, count) for [begin, end) in pieces.
template <typename F> void each_piece(int64_t begin, int64_t end, int64_t size, const F &function)
{
  for (int64_t first = begin; first < end; first += size)
    function(first, std::min(size, end - first));
}

// Walks over pairs take turns with work at nodes after as many nodes as this: walks have radial
// tables in the cache, which are too large to be there together with other tables and matrices.
constexpr int64_t walk_size = 8 * NodeTile<float>::size;

// Messages, or gradients by features or messages, of the nodes of a walk; of one thread.
template <typename T> struct WalkRows {
  std::vector<T> memory;
  int64_t first, row;
  WalkRows(const NodeTile<T> &node) :
      memory(walk_size * node.components * node.channels), first(0),
      row(node.components * node.channels)
  {
  }
  T *at(int64_t node) { return memory.data() + (node - first) * row; }
};

template <typename T> T *rows_of(const Tensor &x, int64_t first)
{
  return x.numel() ? x.mutable_data_ptr<T>() + first * (x.numel() / x.size(0)) : nullptr;
}

// [n, D, C] -> [n, C]
template <typename T>
void take_scalars(const T *x, int64_t components, int64_t channels, int64_t count, T *out)
{
  for (int64_t n = 0; n < count; ++n)
    std::copy_n(x + n * components * channels, channels, out + n * channels);
}

// Arrays of one thread for the rows of a tile.
template <typename T> struct TileRows {
  std::vector<T> memory;
  int64_t row;
  explicit TileRows(const NodeTile<T> &node, int64_t count) :
      memory(count * NodeTile<T>::size * node.components * node.channels),
      row(NodeTile<T>::size * node.components * node.channels)
  {
  }
  T *operator[](int64_t k) { return memory.data() + k * row; }
};

// Where the gradients of a layer's messages go: into forces, or to the neighbors.
template <typename T>
void pass_on(const EdgeLayer<T> &edges, const Pairs &pairs, const T *da, int64_t first,
             int64_t count, const Tensor &ranked, const Tensor &gradients, const PairSums &sums,
             std::vector<T> &blocked)
{
  if (gradients.numel() > 0)
    std::copy_n(da, count * edges.components * edges.channels, rows_of<T>(gradients, first));
  if (!edges.first) {
    edges.project(da, edges.output, count, rows_of<T>(ranked, first));
    return;
  }
  blocked.resize(walk_size * edges.row_size());
  edges.to_blocks(da, count, blocked.data());
  PairArguments<T> a = edges.arguments(pairs);
  a.g = blocked.data();
  a.sums = sums;
  Kernels<T>::density().density_adjoint(a, thread_scratch<T>(edges.scratch_size()), first,
                                        first + count);
}

// m and z of a tile from its messages, the residual included.
template <typename T> class LayerForward {
 public:
  LayerForward(bool first_layer, NodeTile<T> &node, const Tensor &gate_before,
               at::ArrayRef<double> numbers, const Tensor &z_before) :
      first_layer(first_layer), node(node), z_before(z_before),
      gate_before(gate_before, node.channels, NodeTile<T>::size, numbers[2]), rows(node, 1)
  {
  }

  void operator()(int64_t first, int64_t count, const T *messages, T *m, T *z)
  {
    node.forward(first, count, messages, m, z);
    if (first_layer) return;
    gate_before.forward(rows_of<T>(z_before, first), node.degrees, count,
                        node.components_out == 1, rows[0]);
    node.add_residual(first, count, rows[0], z);
  }

 private:
  bool first_layer;
  NodeTile<T> &node;
  const Tensor &z_before;
  GateTile<T> gate_before;
  TileRows<T> rows;
};

// Factors of the nodes' energies in the network's precision.
template <typename T>
void energy_factors(const Tensor &scale, const Pairs &pairs, int64_t first, int64_t count, T *out)
{
  const int64_t *const species = pairs.species.const_data_ptr<int64_t>() + first;
  const double *const values = scale.const_data_ptr<double>();
  for (int64_t n = 0; n < count; ++n) out[n] = static_cast<T>(values[species[n]]);
}

}    // namespace

void pair_forward_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                      const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &u,
                      const Tensor &z_before, const Tensor &next_input1, const Tensor &m,
                      const Tensor &z, const Tensor &energy, const Tensor &u_next,
                      const Tensor &features)
{
  const Pairs pairs("pair_forward", TDN_PAIR_ARGUMENTS);
  AT_DISPATCH_FLOATING_TYPES(edge[0].scalar_type(), "pair_forward", [&] {
    using T = scalar_t;
    const EdgeLayer<T> edges(edge, weights[LINEAR].size(2), numbers);
    const Tensor factors[] = {edge[0], next_input1, next_input1, next_input1};
    const EdgeLayer<T> next(factors, edges.channels, numbers);
    pairs.each_center(edges.work_per_pair(), [&](int64_t begin, int64_t end) {
      NodeTile<T> node(weights, numbers[2], numbers[3], species.const_data_ptr<int64_t>());
      LayerForward<T> forward(edges.first, node, gate_before, numbers, z_before);
      TileRows<T> rows(node, 3);
      WalkRows<T> messages(node);
      const int64_t C = node.channels, D = node.components_out;
      const auto at_nodes = [&](int64_t first, int64_t count) {
        T *const x = rows[0], *const scalars = rows[1], *const h = rows[2];
        T *const before_gate = rows_of<T>(z, first);
        forward(first, count, messages.at(first), rows_of<T>(m, first), before_gate);
        node.gate.forward(before_gate, node.degrees_out, count, false, x);
        take_scalars(x, D, C, count, scalars);
        node.readout.forward(scalars, C, count, energy.mutable_data_ptr<double>() + first);
        linear(weights[NEXT_MIX], node.degrees_out, C, x, count, h);
        if (features.numel() > 0) std::copy_n(h, count * D * C, rows_of<T>(features, first));
        next.project(h, next.input1, count, rows_of<T>(u_next, first));
      };
      each_piece(begin, end, walk_size, [&](int64_t start, int64_t count) {
        messages.first = start;
        edges.messages(pairs, u, start, start + count, messages.at(start));
        each_piece(start, start + count, NodeTile<T>::size, at_nodes);
      });
    });
  });
}

void pair_last_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                   const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &scale,
                   const Tensor &u, const Tensor &z_before, const Tensor &energy,
                   const Tensor &kept, const Tensor &ranked, const Tensor &gradients,
                   at::TensorList sums)
{
  const Pairs pairs("pair_last", TDN_PAIR_ARGUMENTS);
  AT_DISPATCH_FLOATING_TYPES(edge[0].scalar_type(), "pair_last", [&] {
    using T = scalar_t;
    const EdgeLayer<T> edges(edge, weights[LINEAR].size(2), numbers);
    pairs.each_center(edges.work_per_pair(), [&](int64_t begin, int64_t end) {
      NodeTile<T> node(weights, numbers[2], numbers[3], species.const_data_ptr<int64_t>());
      LayerForward<T> forward(edges.first, node, gate_before, numbers, z_before);
      const PairSums thread_sums = sums_of_thread(sums);
      TileRows<T> rows(node, 4);
      WalkRows<T> messages(node);    // then their gradients
      std::vector<T> blocked;
      T factors[NodeTile<T>::size];
      const int64_t C = node.channels;    // its features are scalars
      const auto at_nodes = [&](int64_t first, int64_t count) {
        T *const m = rows[0], *const z = rows[1], *const scalars = rows[2], *const slope = rows[3];
        forward(first, count, messages.at(first), m, z);
        node.gate.forward(z, 1, count, true, scalars);
        node.readout.forward(scalars, C, count, energy.mutable_data_ptr<double>() + first);
        energy_factors(scale, pairs, first, count, factors);
        node.readout.slope(scalars, C, count, factors, slope);
        node.gate.adjoint(weights[GATE_T], z, 1, count, slope, slope);
        if (!edges.first) node.residual_adjoint(first, count, slope, rows_of<T>(kept, first));
        node.adjoint(first, count, slope, m, messages.at(first));
      };
      each_piece(begin, end, walk_size, [&](int64_t start, int64_t count) {
        messages.first = start;
        edges.messages(pairs, u, start, start + count, messages.at(start));
        each_piece(start, start + count, NodeTile<T>::size, at_nodes);
        pass_on(edges, pairs, messages.at(start), start, count, ranked, gradients, thread_sums,
                blocked);
      });
    });
  });
}

void pair_backward_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList below,
                       at::TensorList weights, at::ArrayRef<double> numbers, const Tensor &scale,
                       const Tensor &u, const Tensor &ranked, const Tensor &m, const Tensor &z,
                       const Tensor &kept, const Tensor &kept_below, const Tensor &ranked_below,
                       const Tensor &gradients, at::TensorList sums)
{
  const Pairs pairs("pair_backward", TDN_PAIR_ARGUMENTS);
  AT_DISPATCH_FLOATING_TYPES(edge[0].scalar_type(), "pair_backward", [&] {
    using T = scalar_t;
    const EdgeLayer<T> edges(edge, weights[LINEAR].size(2), numbers);
    const EdgeLayer<T> edges_below(below, edges.channels, numbers);
    pairs.each_center(edges.work_per_pair(), [&](int64_t begin, int64_t end) {
      NodeTile<T> node(weights, numbers[2], numbers[3], species.const_data_ptr<int64_t>());
      const PairSums thread_sums = sums_of_thread(sums);
      TileRows<T> rows(node, 3);
      WalkRows<T> walk(node);    // gradients by features, then by messages
      std::vector<T> blocked;
      T factors[NodeTile<T>::size];
      const int64_t C = node.channels, D = node.components_out, kept_rows = kept.size(1);
      const auto at_nodes = [&](int64_t first, int64_t count) {
        T *const dx = rows[0], *const scalars = rows[1], *const slope = rows[2];
        const T *const before_gate = rows_of<T>(z, first);
        linear(weights[NEXT_MIX_T], node.degrees_out, C, walk.at(first), count, dx);
        node.gate.forward(before_gate, node.degrees_out, count, true, scalars);
        energy_factors(scale, pairs, first, count, factors);
        node.readout.slope(scalars, C, count, factors, slope);
        const T *const residual = rows_of<T>(kept, first);
        for (int64_t n = 0; n < count; ++n) {
          for (int64_t c = 0; c < C; ++c) dx[n * D * C + c] += slope[n * C + c];
          for (int64_t k = 0; k < kept_rows * C; ++k)
            dx[n * D * C + k] += residual[n * kept_rows * C + k];
        }
        T *const dz = rows[1];
        node.gate.adjoint(weights[GATE_T], before_gate, node.degrees_out, count, dx, dz);
        if (!edges_below.first)
          node.residual_adjoint(first, count, dz, rows_of<T>(kept_below, first));
        node.adjoint(first, count, dz, rows_of<T>(m, first), walk.at(first));
      };
      each_piece(begin, end, walk_size, [&](int64_t start, int64_t count) {
        walk.first = start;
        edges.adjoint(pairs, u, ranked, thread_sums, start, start + count, walk.at(start));
        each_piece(start, start + count, NodeTile<T>::size, at_nodes);
        pass_on(edges_below, pairs, walk.at(start), start, count, ranked_below, gradients,
                thread_sums, blocked);
      });
    });
  });
}

}    // namespace tdn
