#include "pair_batch.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// Sums of the first layer, whose neighbors are known by their species alone.

template <typename T, int L>
void density(const PairArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  constexpr int D = L ? L * L : 1;
  const RadialTable<T> &table = a.pairs.table;
  const int64_t degrees = table.degrees, components = degrees * degrees;
  PairBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, components, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  const TableIndex<T> index(table, a.blocks);
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t k = 0; k < a.blocks * components * V; ++k) scratch.sums[k] = 0;
    for (int64_t k = a.pairs.ptr[i]; k < a.pairs.ptr[i + 1];) {
      k = fill<T, Take::outgoing>(batch, a.pairs, index, i, k);
      spherical_harmonics<T, false>(batch, a.l_max, legendre);
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        T *const sums = scratch.sums + block * components * V;
        Vector<T, V> total[D];
        if constexpr (L > 0)
          for (int n = 0; n < D; ++n) total[n] = load<T, V>(sums + n * V);
        for (int e = 0; e < batch.count; ++e) {
          radial_weights<T, L, false>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                      scratch.w, nullptr);
          if constexpr (L > 0) {
            for (int l = 0; l < L; ++l) {
              const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
              for (int n = l * l; n < (l + 1) * (l + 1); ++n)
                total[n] += batch.y[n * batch_size + e] * weight;
            }
          } else {
            for (int64_t l = 0; l < degrees; ++l) {
              const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
              for (int64_t n = l * l; n < (l + 1) * (l + 1); ++n)
                store<T, V>(sums + n * V,
                            load<T, V>(sums + n * V) + batch.y[n * batch_size + e] * weight);
            }
          }
        }
        if constexpr (L > 0)
          for (int n = 0; n < D; ++n) store<T, V>(sums + n * V, total[n]);
      }
    }
    for (int64_t block = 0; block < a.blocks; ++block) {
      const int64_t first = block * V;
      const int64_t count = a.channels - first < V ? a.channels - first : V;
      for (int64_t n = 0; n < components; ++n) {
        const T *const from = scratch.sums + (block * components + n) * V;
        T *const out = a.out + ((i - begin) * components + n) * a.channels + first;
        for (int64_t c = 0; c < count; ++c) out[c] = from[c];
      }
    }
  }
}

// Edges from the center i, whose gradient is the same for all; or from ghosts, each with its own.
template <typename T, int L, Take take>
void density_adjoint(const PairArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  constexpr int D = L ? L * L : 1;
  const RadialTable<T> &table = a.pairs.table;
  const int64_t degrees = table.degrees, components = degrees * degrees;
  [[maybe_unused]] const int64_t stride = a.blocks * components * V;
  PairBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, components, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  const TableIndex<T> index(table, a.blocks);
  for (int64_t i = begin; i < end; ++i)
    for (int64_t k = a.pairs.ptr[i]; k < a.pairs.ptr[i + 1];) {
      k = fill<T, take>(batch, a.pairs, index, i, k);
      if (batch.count == 0) break;
      spherical_harmonics<T, true>(batch, a.l_max, legendre);
      for (int64_t n = 0; n < batch.count * 3 * V; ++n) scratch.along[n] = 0;
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        const T *g = a.g + ((i - begin) * a.blocks + block) * components * V;
        Vector<T, V> own[D];    // in registers for all edges
        if constexpr (L > 0 && !is_incoming<take>)
          for (int n = 0; n < D; ++n) own[n] = load<T, V>(g + n * V);
        for (int e = 0; e < batch.count; ++e) {
          if constexpr (is_incoming<take>)
            g = a.g + (batch.node[e] - a.pairs.num_centers) * stride + block * components * V;
          radial_weights<T, L, true>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                     scratch.w, scratch.dw);
          T *const along = scratch.along + 3 * e * V;
          Vector<T, V> radial = load<T, V>(along), angle1 = load<T, V>(along + V);
          Vector<T, V> angle2 = load<T, V>(along + 2 * V);
          const int64_t count = L ? L : degrees;
          for (int64_t l = 0; l < count; ++l) {
            Vector<T, V> q = {}, q1 = {}, q2 = {};
            for (int64_t n = l * l; n < (l + 1) * (l + 1); ++n) {
              Vector<T, V> gradient;
              if constexpr (L > 0 && !is_incoming<take>)
                gradient = own[n];
              else
                gradient = load<T, V>(g + n * V);
              q += batch.y[n * batch_size + e] * gradient;
              q1 += batch.dy[0][n * batch_size + e] * gradient;
              q2 += batch.dy[1][n * batch_size + e] * gradient;
            }
            radial += q * load<T, V>(scratch.dw + l * V);
            if (l == 0) continue;    // the scalar harmonic has no slope along angles
            const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
            angle1 += q1 * weight;
            angle2 += q2 * weight;
          }
          store<T, V>(along, radial);
          store<T, V>(along + V, angle1);
          store<T, V>(along + 2 * V, angle2);
        }
      }
      for (int e = 0; e < batch.count; ++e)
        add_edge<T, take>(a.sums, batch, e, scratch.along + 3 * e * V, i, a.pairs.num_centers);
    }
}

template <typename T>
using Density = void (*)(const PairArguments<T> &, T *, int64_t, int64_t);

template <typename T>
void run_density(const PairArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  constexpr Density<T> table[] = {density<T, 0>, density<T, 1>, density<T, 2>, density<T, 3>,
                                  density<T, 4>};
  const int64_t degrees = a.pairs.table.degrees;
  table[degrees > 4 ? 0 : degrees](a, scratch, begin, end);
}

template <typename T, Take take>
void run_adjoint(const PairArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  constexpr Density<T> table[] = {density_adjoint<T, 0, take>, density_adjoint<T, 1, take>,
                                  density_adjoint<T, 2, take>, density_adjoint<T, 3, take>,
                                  density_adjoint<T, 4, take>};
  const int64_t degrees = a.pairs.table.degrees;
  table[degrees > 4 ? 0 : degrees](a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) pair_density_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const PairDensityTable TDN_TABLE(TDN_KERNELS);
const PairDensityTable TDN_TABLE(TDN_KERNELS) = {
    {run_density<float>, run_adjoint<float, Take::outgoing>,
     run_adjoint<float, Take::incoming_from_ghosts>},
    {run_density<double>, run_adjoint<double, Take::outgoing>,
     run_adjoint<double, Take::incoming_from_ghosts>}};

}    // namespace tdn
