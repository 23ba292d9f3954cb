#include "pair_cuda_block.h"

// What the layers do beside their convolutions: matrices of factors over the components of a node,
// and the repulsion of nuclei.

namespace tdn::cuda {
namespace {

// A thread has V channels of 8 rows. Bound by the memory of x and out: the matrix, which all nodes
// share, comes from the first-level cache.
template <typename T, int V> struct Projection {
  static constexpr int rows = 8;
  PairProjection<T> a;
  int64_t tiles, packs;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t c = thread % packs * V, first = thread / packs % tiles * rows;
    const int64_t node = thread / packs / tiles;
    const int count = a.rows_out - first < rows ? static_cast<int>(a.rows_out - first) : rows;
    const T *const x = a.x + node * a.rows_in * a.channels + c;
    const T *const matrix = a.matrix + first * a.step_out;
    Pack<T, V> sum[rows] = {};
    TDN_UNROLL_TWICE
    for (int64_t k = 0; k < a.rows_in; ++k) {
      const Pack<T, V> value = load<T, V>(x + k * a.channels);
      TDN_UNROLL
      for (int n = 0; n < rows; ++n) {
        const T factor = n < count ? matrix[k * a.step_in + n * a.step_out] : T(0);
        TDN_UNROLL
        for (int v = 0; v < V; ++v) sum[n].value[v] += factor * value.value[v];
      }
    }
    T *const out = a.out + (node * a.rows_out + first) * a.channels + c;
    TDN_UNROLL
    for (int n = 0; n < rows; ++n)
      if (n < count) store(out + n * a.channels, sum[n]);
  }
};

template <typename T, int V> int launch_packs(const PairProjection<T> &a, const Queue &queue)
{
  constexpr int rows = Projection<T, V>::rows;
  const int64_t tiles = (a.rows_out + rows - 1) / rows, packs = a.channels / V;
  return launch_threads(Projection<T, V>{a, tiles, packs}, a.count * tiles * packs, queue);
}

// Both ends have half of a pair's energy, so that the edges i -> j and j -> i have the same one. A
// thread takes a center.
struct Repulsion {
  PairRepulsion a;

  TDN_DEVICE void operator()(int64_t i) const
  {
    constexpr double half_coulomb = 0.5 * 14.399645478425668;
    constexpr double share[] = {0.18175, 0.50986, 0.28022, 0.02817};
    constexpr double decay[] = {3.19980, 0.94229, 0.40290, 0.20162};
    const int64_t begin = a.pairs.ptr[i], end = a.pairs.ptr[i + 1], si = a.pairs.species[i];
    TDN_DEVICE_CHECK(begin >= 0 && begin <= end && end <= a.num_pairs, bad_pairs);
    TDN_DEVICE_CHECK(in_range(si, 0, a.num_species), bad_pairs);
    double energy = 0, force[3] = {}, virial[9] = {};
    for (int64_t k = begin; k < end; ++k) {
      const Neighbor neighbor = neighbor_of(a.pairs, a.num_rows, i, k);
      if (neighbor.node < 0) continue;
      const int64_t sj = a.pairs.species[neighbor.node];
      TDN_DEVICE_CHECK(in_range(sj, 0, a.num_species), bad_pairs);
      const double cutoff = a.cutoff[si * a.num_species + sj];
      const double r = sqrt(neighbor.r2), y = r / cutoff;
      if (y >= 1) continue;
      const double per_length = (pow(a.number[si], 0.23) + pow(a.number[sj], 0.23)) / 0.46850;
      double screening = 0, slope = 0;
      for (int m = 0; m < 4; ++m) {
        const double term = share[m] * exp(-decay[m] * per_length * r);
        screening += term;
        slope -= decay[m] * per_length * term;
      }
      // the polynomial envelope with p = 6
      const double y2 = y * y, y5 = y2 * y2 * y, y6 = y5 * y;
      const double envelope = 1 - 28 * y6 + 48 * y6 * y - 21 * y6 * y * y;
      const double envelope_slope = -168 * y5 * (1 - y) * (1 - y) / cutoff;
      const double factor = half_coulomb * a.number[si] * a.number[sj] / r;
      energy += factor * screening * envelope;
      const double derivative = factor *
          (slope * envelope + screening * envelope_slope - screening * envelope / r);
      for (int x = 0; x < 3; ++x) {
        const double g = derivative * neighbor.d[x] / r;    // of one edge
        force[x] += 2 * g;
        for (int z = 0; z < 3; ++z) virial[3 * z + x] -= neighbor.d[z] * g;
      }
    }
    a.energy[i] += energy;
    for (int x = 0; x < 3; ++x) a.sums.force[3 * i + x] += force[x];
    for (int k = 0; k < 9; ++k) {
      a.sums.virial[9 * i + k] += virial[k];
      if (a.sums.centroid) a.sums.centroid[9 * i + k] += virial[k];
    }
  }
};

}    // namespace

template <typename T> int launch_projection(const PairProjection<T> &a, const Queue &queue)
{
  return packs<T>(a.channels, a.x, a.out) ? launch_packs<T, widest<T>>(a, queue)
                                          : launch_packs<T, 1>(a, queue);
}

int launch_repulsion(const PairRepulsion &a, const Queue &queue)
{
  return launch_threads(Repulsion{a}, a.pairs.num_centers, queue);
}

template int launch_projection(const PairProjection<float> &, const Queue &);
template int launch_projection(const PairProjection<double> &, const Queue &);

}    // namespace tdn::cuda
