// The convolutions for inference in operations on tensors, differentiable to any order.

#include "convolution.h"

#include "edge_geometry/harmonics.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

namespace tdn {
namespace {

// Real spherical harmonics [E, D] of unit vectors [E, 3].
Tensor spherical_harmonics(const Tensor &unit, int64_t l_max)
{
  std::vector<Tensor> components((l_max + 1) * (l_max + 1));
  harmonics(unit.select(1, 0), unit.select(1, 1), unit.select(1, 2), l_max, Legendre(l_max),
            components.data());
  return at::stack(components, 1);
}

// (harmonics [E, D], radial weights [E, L, C])
std::tuple<Tensor, Tensor> edge_functions(const Tensor &edge_vec, const Tensor &species,
                                          const Tensor &table, double r_max, double stretch,
                                          int64_t l_max, c10::SymInt channels,
                                          const Tensor &center, const Tensor &neighbor)
{
  const Tensor r = at::linalg_vector_norm(edge_vec, 2, 1);
  const Tensor unit = (edge_vec / r.unsqueeze(1)).to(table.scalar_type());
  const int64_t intervals = table.size(2), order = table.size(5) - 1;
  const double scale = (1 + stretch) * static_cast<double>(intervals);
  const Tensor x = scale * r / (r + stretch * r_max);
  const Tensor interval = x.detach().to(at::kLong).clamp(0, intervals - 1);
  const Tensor s = (2 * (x - interval) - 1).to(table.scalar_type()).view({-1, 1, 1, 1});
  const Tensor rows =
      table.index({species.index_select(0, center), species.index_select(0, neighbor), interval});
  Tensor w = rows.select(3, order);    // [E, blocks, L, 16]
  for (int64_t k = order - 1; k >= 0; --k) w = w * s + rows.select(3, k);
  w = w.transpose(1, 2).flatten(2).slice_symint(2, 0, channels);    // [E, L, C]
  const Tensor inside = (r < r_max).to(w.scalar_type()).view({-1, 1, 1});
  return {spherical_harmonics(unit, l_max), w * inside};
}

}    // namespace

Tensor convolution_tensor(TDN_CONVOLUTION_PARAMETERS)
{
  check_convolution(TDN_CONVOLUTION_ARGUMENTS);
  const auto l_max = static_cast<int64_t>(std::lround(std::sqrt(input2.size(0)))) - 1;
  const auto [y, w] =
      edge_functions(edge_vec, species, table, r_max, stretch, l_max,
                                     x.sym_size(2), center, neighbor);
  std::vector<Tensor> b;
  if (table.size(4) == 1)
    b.push_back(at::matmul(y, input2));
  else
    for (int64_t l = 0; l <= l_max; ++l)
      b.push_back(at::matmul(y.slice(1, l * l, (l + 1) * (l + 1)),
                             input2.slice(0, l * l, (l + 1) * (l + 1))));
  const Tensor u = at::matmul(input1.t(), x);    // [nodes, R, C]
  const Tensor coupling = at::matmul(at::stack(b, 2), w);    // [E, R, C]
  const Tensor sums =
      at::zeros_symint({center_ptr.sym_size(0) - 1, input1.sym_size(1), x.sym_size(2)},
                       x.options())
          .index_add(0, center, coupling * u.index_select(0, neighbor));
  return at::matmul(output, sums);
}

Tensor density_tensor(TDN_DENSITY_PARAMETERS)
{
  check_density(TDN_DENSITY_ARGUMENTS);
  const int64_t degrees = table.size(4);
  const auto [y, w] = edge_functions(edge_vec, species, table, r_max, stretch, degrees - 1,
                                     num_channels, center, neighbor);
  std::vector<Tensor> parts;
  for (int64_t l = 0; l < degrees; ++l)
    parts.push_back(y.slice(1, l * l, (l + 1) * (l + 1)).unsqueeze(2) * w.slice(1, l, l + 1));
  const Tensor terms = at::cat(parts, 1);    // [E, D, C]
  return at::zeros_symint({center_ptr.sym_size(0) - 1, degrees * degrees, num_channels},
                          table.options())
      .index_add(0, center, terms);
}

}    // namespace tdn
