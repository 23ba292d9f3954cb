#include "edge_batch.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

// Sums of the first layer, whose neighbors are known by their species alone.

template <typename T, int L>
void density_degrees(const DensityArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  constexpr int D = L ? L * L : 1;
  const RadialTable<T> &table = a.edges.table;
  const int64_t degrees = table.degrees, components = degrees * degrees;
  EdgeBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, components, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t k = 0; k < a.blocks * components * V; ++k) scratch.sums[k] = 0;
    for (int64_t k = a.edges.ptr[i]; k < a.edges.ptr[i + 1];) {
      k = fill(batch, a.edges, a.blocks, i, k, static_cast<double *>(nullptr));
      spherical_harmonics<T, false>(batch, a.l_max, legendre);
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        T *const sums = scratch.sums + block * components * V;
        if constexpr (L > 0) {
          Vector<T, V> total[D];
          for (int n = 0; n < D; ++n) total[n] = load<T, V>(sums + n * V);
          for (int e = 0; e < batch.count; ++e) {
            radial_weights<T, L, false>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                        scratch.w, nullptr);
            for (int l = 0; l < L; ++l) {
              const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
              for (int n = l * l; n < (l + 1) * (l + 1); ++n)
                total[n] += batch.y[n * batch_size + e] * weight;
            }
          }
          for (int n = 0; n < D; ++n) store<T, V>(sums + n * V, total[n]);
        } else {
          for (int e = 0; e < batch.count; ++e) {
            radial_weights<T, L, false>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                        scratch.w, nullptr);
            for (int64_t l = 0; l < degrees; ++l) {
              const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
              for (int64_t n = l * l; n < (l + 1) * (l + 1); ++n)
                store<T, V>(sums + n * V, load<T, V>(sums + n * V) +
                                              batch.y[n * batch_size + e] * weight);
            }
          }
        }
      }
    }
    for (int64_t block = 0; block < a.blocks; ++block) {
      const int64_t first = block * V;
      const int64_t count = a.channels - first < V ? a.channels - first : V;
      for (int64_t n = 0; n < components; ++n) {
        const T *const from = scratch.sums + (block * components + n) * V;
        T *const out = a.out + (i * components + n) * a.channels + first;
        for (int64_t c = 0; c < count; ++c) out[c] = from[c];
      }
    }
  }
}

template <typename T, int L>
void density_adjoint_degrees(const DensityArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const RadialTable<T> &table = a.edges.table;
  const int64_t degrees = table.degrees, components = degrees * degrees;
  EdgeBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, components, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  for (int64_t i = begin; i < end; ++i)
    for (int64_t k = a.edges.ptr[i]; k < a.edges.ptr[i + 1];) {
      k = fill(batch, a.edges, a.blocks, i, k, a.grad_vec);
      spherical_harmonics<T, true>(batch, a.l_max, legendre);
      for (int64_t n = 0; n < batch.count * 3 * V; ++n) scratch.along[n] = 0;
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        const T *const g = a.g + (i * a.blocks + block) * components * V;
        for (int e = 0; e < batch.count; ++e) {
          radial_weights<T, L, true>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                     scratch.w, scratch.dw);
          T *const along = scratch.along + 3 * e * V;
          Vector<T, V> radial = load<T, V>(along), angle1 = load<T, V>(along + V);
          Vector<T, V> angle2 = load<T, V>(along + 2 * V);
          const int64_t count = L ? L : degrees;
          for (int64_t l = 0; l < count; ++l) {
            Vector<T, V> q = {}, q1 = {}, q2 = {};
            for (int64_t n = l * l; n < (l + 1) * (l + 1); ++n) {
              const Vector<T, V> gradient = load<T, V>(g + n * V);
              q += batch.y[n * batch_size + e] * gradient;
              q1 += batch.dy[0][n * batch_size + e] * gradient;
              q2 += batch.dy[1][n * batch_size + e] * gradient;
            }
            const Vector<T, V> weight = load<T, V>(scratch.w + l * V);
            radial += q * load<T, V>(scratch.dw + l * V);
            angle1 += q1 * weight;
            angle2 += q2 * weight;
          }
          store<T, V>(along, radial);
          store<T, V>(along + V, angle1);
          store<T, V>(along + 2 * V, angle2);
        }
      }
      for (int e = 0; e < batch.count; ++e)
        edge_gradient(batch, e, scratch.along + 3 * e * V, a.grad_vec + 3 * batch.edge[e]);
    }
}

template <typename T> using Density = void (*)(const DensityArguments<T> &, T *, int64_t, int64_t);

template <typename T>
void density(const DensityArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  constexpr Density<T> table[] = {density_degrees<T, 0>, density_degrees<T, 1>,
                                  density_degrees<T, 2>, density_degrees<T, 3>,
                                  density_degrees<T, 4>, density_degrees<T, 5>};
  const int64_t degrees = a.edges.table.degrees;
  table[degrees > 5 ? 0 : degrees](a, scratch, begin, end);
}

template <typename T>
void density_adjoint(const DensityArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  constexpr Density<T> table[] = {density_adjoint_degrees<T, 0>, density_adjoint_degrees<T, 1>,
                                  density_adjoint_degrees<T, 2>, density_adjoint_degrees<T, 3>,
                                  density_adjoint_degrees<T, 4>, density_adjoint_degrees<T, 5>};
  const int64_t degrees = a.edges.table.degrees;
  table[degrees > 5 ? 0 : degrees](a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) density_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const DensityTable TDN_TABLE(TDN_KERNELS);
const DensityTable TDN_TABLE(TDN_KERNELS) = {
    {scratch_size, density<float>, density_adjoint<float>},
    {scratch_size, density<double>, density_adjoint<double>}};

}    // namespace tdn
