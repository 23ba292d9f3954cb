#include "edge_tiles.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

template <typename T> void project(const ProjectArguments<T> &a, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  constexpr int max_rows = 16;
  for (int64_t n = begin; n < end; ++n)
    for (int64_t block = 0; block < a.blocks; ++block) {
      const int64_t first = block * V;
      T *const out = a.out + (n * a.blocks + block) * a.rank * V;
      // rows that are held in registers together
      for (int64_t k0 = 0; k0 < a.rows; k0 += max_rows) {
        const int64_t rows = a.rows - k0 < max_rows ? a.rows - k0 : max_rows;
        Vector<T, V> x[max_rows];
        for (int64_t k = 0; k < rows; ++k) {
          const T *const p = a.x + (n * a.rows + k0 + k) * a.channels + first;
          if (first + V <= a.channels) {
            x[k] = load<T, V>(p);
          } else {
            T rest[V] = {};
            for (int64_t c = 0; c < a.channels - first; ++c) rest[c] = p[c];
            x[k] = load<T, V>(rest);
          }
        }
        for (int64_t r = 0; r < a.rank; ++r) {
          Vector<T, V> total = {};
          if (k0 > 0) total = load<T, V>(out + r * V);
          for (int64_t k = 0; k < rows; ++k) total += a.matrix[(k0 + k) * a.rank + r] * x[k];
          store<T, V>(out + r * V, total);
        }
      }
    }
}

template <typename T, int L, int N>
void convolution_tiles(const ConvolutionArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const RadialTable<T> &table = a.edges.table;
  const int64_t degrees = table.degrees, stride = a.blocks * a.rank * V;
  const int64_t row = pad(a.rank, V);
  EdgeBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, a.rank, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t k = 0; k < stride; ++k) scratch.sums[k] = 0;
    for (int64_t k = a.edges.ptr[i]; k < a.edges.ptr[i + 1];) {
      k = fill(batch, a.edges, a.blocks, i, k, static_cast<double *>(nullptr));
      spherical_harmonics<T, false>(batch, a.l_max, legendre);
      couple(batch.y, a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[0]);
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        for (int e = 0; e < batch.count; ++e)
          radial_weights<T, L, false>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                      scratch.w + e * degrees * V, nullptr);
        for (int64_t r = 0; r < a.rank; r += N)
          gather_tile<T, L, N>(batch, a.u + (block * a.rank + r) * V, stride, scratch.b[0] + r,
                               degrees, row, scratch.w,
                               scratch.sums + (block * a.rank + r) * V);
      }
    }
    for (int64_t block = 0; block < a.blocks; ++block)
      contract(a.output, a.rows_out, a.rank, scratch.sums + block * a.rank * V, a.channels, block,
               a.out + i * a.rows_out * a.channels);
  }
}

template <typename T, int L, int N>
void adjoint_tiles(const ConvolutionArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const RadialTable<T> &table = a.edges.table;
  const int64_t degrees = table.degrees, stride = a.blocks * a.rank * V;
  const int64_t row = pad(a.rank, V);
  EdgeBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, a.rank, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  for (int64_t j = begin; j < end; ++j) {
    for (int64_t k = 0; k < stride; ++k) scratch.sums[k] = 0;
    for (int64_t k = a.edges.ptr[j]; k < a.edges.ptr[j + 1];) {
      k = fill(batch, a.edges, a.blocks, j, k, a.grad_vec);
      spherical_harmonics<T, true>(batch, a.l_max, legendre);
      couple(batch.y, a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[0]);
      for (int d = 0; d < 2; ++d)
        couple(batch.dy[d], a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[1 + d]);
      for (int64_t n = 0; n < batch.count * 3 * V; ++n) scratch.along[n] = 0;
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        for (int e = 0; e < batch.count; ++e)
          radial_weights<T, L, true>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                     scratch.w + e * degrees * V, scratch.dw + e * degrees * V);
        for (int64_t r = 0; r < a.rank; r += N) {
          const int64_t at = (block * a.rank + r) * V;
          adjoint_tile<T, L, N>(batch, a.g + at, stride, a.u + j * stride + at, scratch.b[0] + r,
                                scratch.b[1] + r, scratch.b[2] + r, degrees, row, scratch.w,
                                scratch.dw, scratch.along, scratch.sums + at);
        }
      }
      for (int e = 0; e < batch.count; ++e)
        edge_gradient(batch, e, scratch.along + 3 * e * V, a.grad_vec + 3 * batch.edge[e]);
    }
    if (a.out)
      for (int64_t block = 0; block < a.blocks; ++block)
        contract(a.output, a.rows_out, a.rank, scratch.sums + block * a.rank * V, a.channels,
                 block, a.out + j * a.rows_out * a.channels);
  }
}

template <typename T> using Tiles = void (*)(const ConvolutionArguments<T> &, T *, int64_t,
                                             int64_t);

template <typename T, int N, bool adjoint> Tiles<T> tiles_for_degrees(int64_t degrees)
{
  if constexpr (adjoint) {
    constexpr Tiles<T> table[] = {adjoint_tiles<T, 0, N>, adjoint_tiles<T, 1, N>,
                                  adjoint_tiles<T, 2, N>, adjoint_tiles<T, 3, N>,
                                  adjoint_tiles<T, 4, N>, adjoint_tiles<T, 5, N>};
    return table[degrees > 5 ? 0 : degrees];
  } else {
    constexpr Tiles<T> table[] = {convolution_tiles<T, 0, N>, convolution_tiles<T, 1, N>,
                                  convolution_tiles<T, 2, N>, convolution_tiles<T, 3, N>,
                                  convolution_tiles<T, 4, N>, convolution_tiles<T, 5, N>};
    return table[degrees > 5 ? 0 : degrees];
  }
}

template <typename T, bool adjoint>
void run(const ConvolutionArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  const int64_t tile = tile_size(a.rank), degrees = a.edges.table.degrees;
  const Tiles<T> function = tile == large_tile ? tiles_for_degrees<T, large_tile, adjoint>(degrees)
      : tile == middle_tile ? tiles_for_degrees<T, middle_tile, adjoint>(degrees)
                            : tiles_for_degrees<T, small_tile, adjoint>(degrees);
  function(a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) convolution_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const ConvolutionTable TDN_TABLE(TDN_KERNELS);
const ConvolutionTable TDN_TABLE(TDN_KERNELS) = {
    {width<float>, padded_rank, padded_row<float>, project<float>, scratch_size, run<float, false>, run<float, true>},
    {width<double>, padded_rank, padded_row<double>, project<double>, scratch_size, run<double, false>,
     run<double, true>}};

}    // namespace tdn
