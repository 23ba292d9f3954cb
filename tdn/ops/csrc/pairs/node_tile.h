// What a layer does with the messages of some nodes: node products, channel mixing, gate, readout,
// and the adjoint of all that. Nodes go in tiles whose features stay in the caches of one core.

#ifndef TDN_NODE_TILE_H
#define TDN_NODE_TILE_H

#include "degree_linear/degree_linear_kernels.h"
#include "gate/gate_kernels.h"
#include "node_product/node_product_kernels.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace tdn {

using at::Tensor;

// Constants of a layer in the order in which the operators take them. Matrices have their columns
// padded with zeros to whole vectors; those named _T are their transposes, for the adjoint.
enum NodeWeight {
  MIX_IN, MIX_IN_T,                     // [L, C, C'] of the messages
  LINEAR, LEFT, RIGHT, WEIGHT,          // of the node product
  INPUT1, INPUT2, OUTPUT,               // [R, D]
  MIX_OUT, MIX_OUT_T,                   // [L_out, C, C']
  GATE, GATE_T,                         // [1, C, (L_out - 1) C], [1, (L_out - 1) C, C]
  RESIDUAL_SCALE,                       // [S, D_out, C]; empty in the first layer, as the next two
  RESIDUAL_MIX, RESIDUAL_MIX_T,         // [L_out, C, C']
  READOUT,                              // [C], or [H] behind a hidden layer
  READOUT_MIX, READOUT_MIX_T,           // [1, C, H'], [1, H, C']; empty without a hidden layer
  NEXT_MIX, NEXT_MIX_T,                 // [L_out, C, C'] before the next layer; empty in the last
  NUM_NODE_WEIGHTS
};

template <typename T> const DegreeLinearKernels<T> &linear_kernels();
template <> inline const DegreeLinearKernels<float> &linear_kernels<float>()
{
  return degree_linear_table().float32;
}
template <> inline const DegreeLinearKernels<double> &linear_kernels<double>()
{
  return degree_linear_table().float64;
}
template <typename T> const NodeProductKernels<T> &product_kernels();
template <> inline const NodeProductKernels<float> &product_kernels<float>()
{
  return node_product_table().float32;
}
template <> inline const NodeProductKernels<double> &product_kernels<double>()
{
  return node_product_table().float64;
}
inline void sigmoid(float *x, int64_t count) { gate_table().float32.sigmoid(x, 0, count); }
inline void sigmoid(double *x, int64_t count) { gate_table().float64.sigmoid(x, 0, count); }

// y = x w for `count` nodes with all components up to a number of degrees.
template <typename T>
void linear(const Tensor &w, int64_t degrees, int64_t channels_out, const T *x, int64_t count, T *y)
{
  DegreeLinearArguments<T> a{};
  a.degrees = degrees;
  a.channels_in = w.size(1);
  a.channels_out = channels_out;
  a.num_nodes = count;
  a.stride = w.size(2);
  a.x = x;
  a.w = w.const_data_ptr<T>();
  a.out = y;
  linear_kernels<T>().forward(a, 0, count);
}

// silu on the scalars, sigmoids of them on higher degrees; see `tdn.network.layers.Gate`.
template <typename T> class GateTile {
 public:
  // scale 0: features pass as they are
  GateTile(const Tensor &weight, int64_t channels, int64_t tile, double scale) :
      weight(weight), C(channels), scale(static_cast<T>(scale)), scalars(tile * C),
      sigmoids(tile * C), gates(tile * weight.numel() / C),
      slopes(gates.size())
  {
  }

  // [n, D, C] -> [n, D, C], or with `scalars_only` -> [n, C]
  void forward(const T *z, int64_t degrees, int64_t count, bool scalars_only, T *x)
  {
    const int64_t D = degrees * degrees, D_out = scalars_only ? 1 : D;
    find(z, degrees, count, !scalars_only);
    for (int64_t n = 0; n < count; ++n) {
      const T *const in = z + n * D * C, *const s = &sigmoids[n * C];
      T *const out = x + n * D_out * C;
      for (int64_t c = 0; c < C; ++c) out[c] = scale == 0 ? in[c] : scale * in[c] * s[c];
      for (int64_t k = 1; k < D_out; ++k) {
        const T *const gate = gate_of(n, k, degrees);
        for (int64_t c = 0; c < C; ++c)
          out[k * C + c] = scale == 0 ? in[k * C + c] : 2 * gate[c] * in[k * C + c];
      }
    }
  }

  // dz from dx, which may be the same; weight_t: transposed
  void adjoint(const Tensor &weight_t, const T *z, int64_t degrees, int64_t count, const T *dx,
               T *dz)
  {
    const int64_t D = degrees * degrees, columns = (degrees - 1) * C;
    if (scale == 0) {
      if (dz != dx) std::copy_n(dx, count * D * C, dz);
      return;
    }
    find(z, degrees, count, true);
    for (int64_t n = 0; n < count; ++n) {
      const T *const in = z + n * D * C, *const s = &sigmoids[n * C], *const dy = dx + n * D * C;
      T *const out = dz + n * D * C;
      for (int64_t c = 0; c < C; ++c) out[c] = scale * dy[c] * s[c] * (1 + in[c] * (1 - s[c]));
      for (int64_t l = 1; l < degrees; ++l) {
        const T *const gate = gate_of(n, l * l, degrees);
        T *const slope = &slopes[n * columns + (l - 1) * C];
        std::fill_n(slope, C, T(0));
        for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k)
          for (int64_t c = 0; c < C; ++c) {
            slope[c] += in[k * C + c] * dy[k * C + c];
            out[k * C + c] = 2 * gate[c] * dy[k * C + c];
          }
        for (int64_t c = 0; c < C; ++c) slope[c] *= 2 * gate[c] * (1 - gate[c]);
      }
    }
    if (degrees == 1) return;
    linear(weight_t, 1, C, slopes.data(), count, scalars.data());
    for (int64_t n = 0; n < count; ++n)
      for (int64_t c = 0; c < C; ++c) dz[n * D * C + c] += scalars[n * C + c];
  }

 private:
  const Tensor &weight;
  int64_t C;
  T scale;
  std::vector<T> scalars, sigmoids, gates, slopes;

  const T *gate_of(int64_t n, int64_t component, int64_t degrees) const
  {
    int64_t l = 1;
    while ((l + 1) * (l + 1) <= component) ++l;
    return &gates[(n * (degrees - 1) + l - 1) * C];
  }

  void find(const T *z, int64_t degrees, int64_t count, bool with_gates)
  {
    if (scale == 0) return;
    for (int64_t n = 0; n < count; ++n)
      std::copy_n(z + n * degrees * degrees * C, C, &scalars[n * C]);
    std::copy_n(scalars.data(), count * C, sigmoids.data());
    sigmoid(sigmoids.data(), count * C);
    if (!with_gates || degrees == 1) return;
    linear(weight, 1, (degrees - 1) * C, scalars.data(), count, gates.data());
    sigmoid(gates.data(), count * (degrees - 1) * C);
  }
};

// Energy of a node from its scalars, through a hidden layer or not.
template <typename T> class ReadoutTile {
 public:
  ReadoutTile(at::TensorList weights, int64_t tile, double silu_scale) :
      weight(weights[READOUT]), mix(weights[READOUT_MIX]), mix_t(weights[READOUT_MIX_T]),
      silu_scale(static_cast<T>(silu_scale)), hidden(weight.numel()), x(tile * hidden),
      sigmoids(tile * hidden)
  {
  }

  // scalars [n, C]; energies are added in float64
  void forward(const T *scalars, int64_t channels, int64_t count, double *energy)
  {
    const T *const w = weight.const_data_ptr<T>();
    const T *values = scalars;
    if (mix.numel() > 0) {
      find(scalars, count);
      for (int64_t k = 0; k < count * hidden; ++k) sigmoids[k] *= silu_scale * x[k];
      values = sigmoids.data();
    }
    for (int64_t n = 0; n < count; ++n) {
      double total = 0;
      for (int64_t k = 0; k < hidden; ++k)
        total += static_cast<double>(w[k]) * static_cast<double>(values[n * hidden + k]);
      energy[n] += total;
    }
  }

  // [n, C]: factor of each node times the derivative of its energy
  void slope(const T *scalars, int64_t channels, int64_t count, const T *factor, T *out)
  {
    const T *const w = weight.const_data_ptr<T>();
    if (mix.numel() == 0) {
      for (int64_t n = 0; n < count; ++n)
        for (int64_t c = 0; c < channels; ++c) out[n * channels + c] = factor[n] * w[c];
      return;
    }
    find(scalars, count);
    for (int64_t n = 0; n < count; ++n)
      for (int64_t k = 0; k < hidden; ++k) {
        const T s = sigmoids[n * hidden + k];
        x[n * hidden + k] = factor[n] * w[k] * silu_scale * s * (1 + x[n * hidden + k] * (1 - s));
      }
    linear(mix_t, 1, channels, x.data(), count, out);
  }

 private:
  const Tensor &weight, &mix, &mix_t;
  T silu_scale;
  int64_t hidden;
  std::vector<T> x, sigmoids;

  void find(const T *scalars, int64_t count)
  {
    linear(mix, 1, hidden, scalars, count, x.data());
    std::copy_n(x.data(), count * hidden, sigmoids.data());
    sigmoid(sigmoids.data(), count * hidden);
  }
};

// A layer on one tile; rows of the arguments are those of its nodes.
template <typename T> class NodeTile {
 public:
  static constexpr int64_t size = 12;    // a multiple of the rows of a tile of channel mixing

  const at::TensorList weights;
  const int64_t channels, degrees, degrees_out, components, components_out;
  GateTile<T> gate;
  ReadoutTile<T> readout;

  NodeTile(at::TensorList weights, double gate_scale, double silu_scale, const int64_t *species) :
      weights(weights), channels(weights[LINEAR].size(2)), degrees(weights[LEFT].size(2)),
      degrees_out(weights[LINEAR].size(1)), components(degrees * degrees),
      components_out(degrees_out * degrees_out),
      gate(weights[GATE], channels, size, gate_scale), readout(weights, size, silu_scale),
      species(species), rows(size * components * channels), other_rows(rows.size())
  {
    product.components = components;
    product.components_out = components_out;
    product.rank = weights[INPUT1].size(0);
    product.orders = weights[LEFT].size(0);
    product.num_species = weights[LINEAR].size(0);
    product.channels = channels;
    const T **const pointers[] = {&product.linear, &product.left,   &product.right,
                                  &product.weight, &product.input1, &product.input2,
                                  &product.output};
    for (int k = 0; k < 7; ++k) *pointers[k] = weights[LINEAR + k].const_data_ptr<T>();
    product_scratch.resize(
        product_kernels<T>().scratch_size(components, product.rank, product.orders) + alignment);
  }

  // messages [n, D, C] -> m [n, D, C], their mixture, and z [n, D_out, C], before the gate
  void forward(int64_t first, int64_t count, const T *messages, T *m, T *z)
  {
    linear(weights[MIX_IN], degrees, channels, messages, count, m);
    NodeProductArguments<T> a = product;
    a.species = species + first;
    a.m = m;
    a.out = rows.data();
    product_kernels<T>().forward(a, scratch(), 0, count);
    linear(weights[MIX_OUT], degrees_out, channels, rows.data(), count, z);
  }

  // z += residual of the features [n, D_out, C] before the layer
  void add_residual(int64_t first, int64_t count, const T *kept, T *z)
  {
    scale_residual(first, count, kept, rows.data());
    linear(weights[RESIDUAL_MIX], degrees_out, channels, rows.data(), count, other_rows.data());
    for (int64_t k = 0; k < count * components_out * channels; ++k) z[k] += other_rows[k];
  }

  // the features' gradient through the residual
  void residual_adjoint(int64_t first, int64_t count, const T *dz, T *out)
  {
    linear(weights[RESIDUAL_MIX_T], degrees_out, channels, dz, count, rows.data());
    scale_residual(first, count, rows.data(), out);
  }

  // dz, m -> gradient of the messages [n, D, C]
  void adjoint(int64_t first, int64_t count, const T *dz, const T *m, T *out)
  {
    linear(weights[MIX_OUT_T], degrees_out, channels, dz, count, rows.data());
    NodeProductArguments<T> a = product;
    a.species = species + first;
    a.m = m;
    a.g = rows.data();
    a.out = other_rows.data();
    product_kernels<T>().adjoint(a, scratch(), 0, count);
    linear(weights[MIX_IN_T], degrees, channels, other_rows.data(), count, out);
  }

 private:
  static constexpr int64_t alignment = 64 / sizeof(T);

  const int64_t *species;
  NodeProductArguments<T> product{};
  std::vector<T> rows, other_rows, product_scratch;

  T *scratch()
  {
    void *start = product_scratch.data();
    size_t space = product_scratch.size() * sizeof(T);
    return static_cast<T *>(std::align(64, 1, start, space));
  }

  void scale_residual(int64_t first, int64_t count, const T *x, T *out) const
  {
    const int64_t row = components_out * channels;
    const T *const factors = weights[RESIDUAL_SCALE].const_data_ptr<T>();
    for (int64_t n = 0; n < count; ++n) {
      const T *const factor = factors + species[first + n] * row;
      for (int64_t k = 0; k < row; ++k) out[n * row + k] = factor[k] * x[n * row + k];
    }
  }
};

}    // namespace tdn

#endif
