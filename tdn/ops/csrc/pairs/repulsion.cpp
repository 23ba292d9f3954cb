#include "pair_tensors.h"

#include <cmath>

namespace tdn {

// Both ends have half of a pair's energy, so that the edges i -> j and j -> i have the same one.
void pair_zbl_cpu(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                  const Tensor &energy, at::TensorList sums)
{
  constexpr double half_coulomb = 0.5 * 14.399645478425668;
  constexpr double share[] = {0.18175, 0.50986, 0.28022, 0.02817};
  constexpr double decay[] = {3.19980, 0.94229, 0.40290, 0.20162};
  const Pairs pairs("pair_zbl", TDN_PAIR_ARGUMENTS);
  const PairList<double> list = pairs.list<double>({});
  const double *const z = number.const_data_ptr<double>();
  const double *const cutoffs = pair_cutoff.const_data_ptr<double>();
  const int64_t num_species = number.numel();
  pairs.each_center(8, [&](int64_t begin, int64_t end) {
    const PairSums out = sums_of_thread(sums);
    double *const energies = energy.mutable_data_ptr<double>();
    for (int64_t i = begin; i < end; ++i) {
      const double *const at = list.positions + 3 * static_cast<int64_t>(list.center[i]);
      for (int64_t k = list.ptr[i]; k < list.ptr[i + 1]; ++k) {
        const int64_t node_j = list.node[list.other[k]];
        if (node_j < 0) continue;
        const double *const to = list.positions + 3 * static_cast<int64_t>(list.other[k]);
        const double v[3] = {to[0] - at[0], to[1] - at[1], to[2] - at[2]};
        const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        const int64_t si = list.species[i], sj = list.species[node_j];
        const double cutoff = cutoffs[si * num_species + sj], y = r / cutoff;
        if (y >= 1) continue;
        const double per_length = (std::pow(z[si], 0.23) + std::pow(z[sj], 0.23)) / 0.46850;
        double screening = 0, slope = 0;
        for (int m = 0; m < 4; ++m) {
          const double term = share[m] * std::exp(-decay[m] * per_length * r);
          screening += term;
          slope -= decay[m] * per_length * term;
        }
        // the polynomial envelope with p = 6
        const double y5 = std::pow(y, 5), y6 = y5 * y;
        const double envelope = 1 - 28 * y6 + 48 * y6 * y - 21 * y6 * y * y;
        const double envelope_slope = -168 * y5 * (1 - y) * (1 - y) / cutoff;
        const double factor = half_coulomb * z[si] * z[sj] / r;
        energies[i] += factor * screening * envelope;
        const double derivative = factor *
            (slope * envelope + screening * envelope_slope - screening * envelope / r);
        // the edges from i and to i: twice the force; the edge to i is the one seen here
        for (int a = 0; a < 3; ++a) {
          const double g = derivative * v[a] / r;
          out.force[3 * i + a] += 2 * g;
          for (int b = 0; b < 3; ++b) {
            const double virial = -v[b] * g;
            out.virial[3 * a + b] += virial;
            if (!out.atom_virial) continue;
            out.atom_virial[9 * i + 3 * a + b] += virial;
            out.centroid[9 * i + 3 * a + b] += virial;
          }
        }
      }
    }
  });
}

}    // namespace tdn
