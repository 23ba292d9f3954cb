#include "convolution/edge_tiles.h"
#include "pair_batch.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.

namespace tdn {
namespace {

template <typename T, int L, int N>
void convolution_tiles(const PairArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const RadialTable<T> &table = a.pairs.table;
  const int64_t degrees = table.degrees, stride = a.blocks * a.rank * V;
  const int64_t row = pad(a.rank, V);
  PairBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, a.rank, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  const TableIndex<T> index(table, a.blocks);
  for (int64_t i = begin; i < end; ++i) {
    T *const sums = scratch.sums;
    for (int64_t k = 0; k < stride; ++k) sums[k] = 0;
    for (int64_t k = a.pairs.ptr[i]; k < a.pairs.ptr[i + 1];) {
      k = fill<T, Take::outgoing>(batch, a.pairs, index, i, k);
      spherical_harmonics<T, false>(batch, a.l_max, legendre);
      couple(batch.y, a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[0]);
      for (int64_t block = 0; block < a.blocks; ++block) {
        const int64_t in_row = block_in_row(table, block);
        for (int e = 0; e < batch.count; ++e)
          radial_weights<T, L, false>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                      scratch.w + e * degrees * V, nullptr);
        for (int64_t r = 0; r < a.rank; r += N) {
          const int64_t at = (block * a.rank + r) * V;
          gather_tile<T, L, N>(batch, a.u + at, stride, scratch.b[0] + r, degrees, row, scratch.w,
                               sums + at);
        }
      }
    }
    for (int64_t block = 0; block < a.blocks; ++block)
      contract(a.output, a.rows_out, a.rank, sums + block * a.rank * V, a.channels, block,
               a.out + (i - begin) * a.rows_out * a.channels);
  }
}

// One more array of sums than other kernels need: those over ghosts.
int64_t pair_scratch_size(int64_t l_max, int64_t degrees, int64_t rank, int64_t blocks)
{
  return scratch_size(l_max, degrees, rank, blocks) + blocks * rank * width<float>;
}

// Edges to the neighbor i give the gradient of its features, and half of the force on it; their
// centers that are ghosts take no part of that force, so edges to ghosts are walked as well.
template <typename T, int L, int N>
void adjoint_tiles(const PairArguments<T> &a, T *memory, int64_t begin, int64_t end)
{
  constexpr int V = width<T>;
  const RadialTable<T> &table = a.pairs.table;
  const int64_t degrees = table.degrees, stride = a.blocks * a.rank * V;
  const int64_t row = pad(a.rank, V);
  PairBatch<T> batch;
  const Scratch<T> scratch(memory, a.l_max, degrees, a.rank, batch);
  const LegendreCoefficients<T> legendre(a.l_max);
  const TableIndex<T> index(table, a.blocks);
  const int passes = a.pairs.num_nodes > a.pairs.num_centers ? 2 : 1;
  for (int64_t i = begin; i < end; ++i) {
    T *const sums = scratch.sums, *const unused = sums + stride;
    for (int64_t k = 0; k < stride; ++k) sums[k] = 0;
    for (int pass = 0; pass < passes; ++pass) {
      const bool outgoing = pass == 1;
      const T *const others = outgoing ? a.u : a.g;
      const T *const own = (outgoing ? a.g : a.u) + i * stride;
      T *const total = outgoing ? unused : sums;
      for (int64_t k = a.pairs.ptr[i]; k < a.pairs.ptr[i + 1];) {
        k = outgoing ? fill<T, Take::outgoing_to_ghosts>(batch, a.pairs, index, i, k)
                     : fill<T, Take::incoming>(batch, a.pairs, index, i, k);
        if (batch.count == 0) break;
        spherical_harmonics<T, true>(batch, a.l_max, legendre);
        couple(batch.y, a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[0]);
        for (int d = 0; d < 2; ++d)
          couple(batch.dy[d], a.harmonics, a.l_max, degrees, row, batch.count, scratch.b[1 + d]);
        for (int64_t n = 0; n < batch.count * 3 * V; ++n) scratch.along[n] = 0;
        if (outgoing)
          for (int64_t n = 0; n < stride; ++n) total[n] = 0;
        for (int64_t block = 0; block < a.blocks; ++block) {
          const int64_t in_row = block_in_row(table, block);
          for (int e = 0; e < batch.count; ++e)
            radial_weights<T, L, true>(batch.row[e] + in_row, batch.s[e], table.order, degrees,
                                       scratch.w + e * degrees * V, scratch.dw + e * degrees * V);
          for (int64_t r = 0; r < a.rank; r += N) {
            const int64_t at = (block * a.rank + r) * V;
            adjoint_tile<T, L, N>(batch, others + at, stride, own + at, scratch.b[0] + r,
                                  scratch.b[1] + r, scratch.b[2] + r, degrees, row, scratch.w,
                                  scratch.dw, scratch.along, total + at);
          }
        }
        for (int e = 0; e < batch.count; ++e) {
          const T *const along = scratch.along + 3 * e * V;
          if (outgoing)
            add_edge<T, Take::outgoing_to_ghosts>(a.sums, batch, e, along, i, a.pairs.num_centers);
          else
            add_edge<T, Take::incoming>(a.sums, batch, e, along, i, a.pairs.num_centers);
        }
      }
    }
    for (int64_t block = 0; block < a.blocks; ++block)
      contract(a.output, a.rows_out, a.rank, sums + block * a.rank * V, a.channels, block,
               a.out + (i - begin) * a.rows_out * a.channels);
  }
}

template <typename T>
using Tiles = void (*)(const PairArguments<T> &, T *, int64_t, int64_t);

template <typename T, int N, bool adjoint> Tiles<T> tiles_for_degrees(int64_t degrees)
{
  if constexpr (adjoint) {
    constexpr Tiles<T> table[] = {adjoint_tiles<T, 0, N>, adjoint_tiles<T, 1, N>,
                                  adjoint_tiles<T, 2, N>, adjoint_tiles<T, 3, N>,
                                  adjoint_tiles<T, 4, N>};
    return table[degrees > 4 ? 0 : degrees];
  } else {
    constexpr Tiles<T> table[] = {convolution_tiles<T, 0, N>, convolution_tiles<T, 1, N>,
                                  convolution_tiles<T, 2, N>, convolution_tiles<T, 3, N>,
                                  convolution_tiles<T, 4, N>};
    return table[degrees > 4 ? 0 : degrees];
  }
}

template <typename T, bool adjoint>
void run(const PairArguments<T> &a, T *scratch, int64_t begin, int64_t end)
{
  const int64_t tile = tile_size(a.rank), degrees = a.pairs.table.degrees;
  const Tiles<T> function = tile == large_tile ? tiles_for_degrees<T, large_tile, adjoint>(degrees)
      : tile == middle_tile ? tiles_for_degrees<T, middle_tile, adjoint>(degrees)
                            : tiles_for_degrees<T, small_tile, adjoint>(degrees);
  function(a, scratch, begin, end);
}

}    // namespace

#define TDN_TABLE_(x) pairs_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const PairTable TDN_TABLE(TDN_KERNELS);
const PairTable TDN_TABLE(TDN_KERNELS) = {
    {pair_scratch_size, run<float, false>, run<float, true>},
    {pair_scratch_size, run<double, false>, run<double, true>}};

}    // namespace tdn
