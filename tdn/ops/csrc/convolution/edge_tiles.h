// Work on a batch of edges in rank space, for the convolution kernels.
// Included by files that are compiled once per instruction set; everything is internal to them.
//
// Work per edge, rank and channel: L + 1 multiply-adds forward (coupling, sum), and 3 L + 2 in the
// adjoint. Channels go in blocks of a vector, ranks in tiles whose sums stay in registers.

#ifndef TDN_EDGE_TILES_H
#define TDN_EDGE_TILES_H

#include "edge_batch.h"

namespace tdn {
namespace {

// 32 registers of 64 bytes hold larger tiles than 16 of 32 bytes.
constexpr bool many_registers = TDN_VECTOR_BYTES == 64;

constexpr int large_tile = many_registers ? 17 : 6;    // 17: the exact rank of l_max 2
constexpr int middle_tile = many_registers ? 9 : 5;
constexpr int small_tile = many_registers ? 6 : 4;

inline int64_t pad(int64_t rank, int64_t tile) { return (rank + tile - 1) / tile * tile; }

// The tile with the least padding; the larger of equals, also for the padded rank.
inline int64_t tile_size(int64_t rank)
{
  const int64_t large = pad(rank, large_tile), middle = pad(rank, middle_tile);
  const int64_t small = pad(rank, small_tile);
  if (large <= middle && large <= small) return large_tile;
  return middle <= small ? middle_tile : small_tile;
}

inline int64_t padded_rank(int64_t rank) { return pad(rank, tile_size(rank)); }

template <typename T> int64_t padded_row(int64_t rank)
{
  return pad(padded_rank(rank), width<T>);
}

// y[k] = sum_r matrix[k, r] x[r] for one block of channels, into rows of features.
template <typename T>
TDN_INLINE void contract(const T *matrix, int64_t rows, int64_t rank, const T *x, int64_t channels,
                         int64_t block, T *out)
{
  constexpr int V = width<T>;
  const int64_t first = block * V;
  for (int64_t k = 0; k < rows; ++k) {
    Vector<T, V> total = {};
    for (int64_t r = 0; r < rank; ++r) total += matrix[k * rank + r] * load<T, V>(x + r * V);
    T *const p = out + k * channels + first;
    if (first + V <= channels) {
      store<T, V>(p, total);
    } else {
      for (int64_t c = 0; c < channels - first; ++c) p[c] = total[c];
    }
  }
}

// b[l, r] = sum_m harmonics[(l, m), r] y[(l, m)] of every edge, or the same with a derivative;
// one row of sums where the radial weights are shared by all degrees. Rows are padded to vectors.
template <typename T>
TDN_INLINE void couple(const T *__restrict__ y, const T *__restrict__ harmonics, int64_t l_max,
                       int64_t degrees, int64_t row, int count, T *__restrict__ b)
{
  constexpr int V = width<T>;
  for (int e = 0; e < count; ++e)
    for (int64_t l = 0; l < degrees; ++l) {
      const int64_t begin = l * l, end = degrees > 1 ? (l + 1) * (l + 1) : (l_max + 1) * (l_max + 1);
      for (int64_t r = 0; r < row; r += V) {
        Vector<T, V> total = {};
        for (int64_t k = begin; k < end; ++k)
          total += y[k * batch_size + e] * load<T, V>(harmonics + k * row + r);
        store<T, V>(b + (e * degrees + l) * row + r, total);
      }
    }
}

// Ranks [0, N) of the sums of one block: a[r] += (sum_l b[l, r] w[l]) u[r] over the batch.
template <typename T, int L, int N>
TDN_INLINE void gather_tile(const EdgeBatch<T> &batch, const T *u, int64_t node_stride,
                            const T *b, int64_t degrees, int64_t row, const T *w, T *sums)
{
  constexpr int V = width<T>;
  const int64_t count = L ? L : degrees;
  Vector<T, V> total[N];
  for (int n = 0; n < N; ++n) total[n] = load<T, V>(sums + n * V);
  for (int e = 0; e < batch.count; ++e) {
    const T *const x = u + batch.node[e] * node_stride;
    const T *const factor = b + e * count * row;
    Vector<T, V> weight[L ? L : 1];
    for (int l = 0; l < L; ++l) weight[l] = load<T, V>(w + (e * count + l) * V);
    for (int n = 0; n < N; ++n) {
      Vector<T, V> coupling = factor[n] * (L ? weight[0] : load<T, V>(w + e * count * V));
      for (int64_t l = 1; l < count; ++l)
        coupling += factor[l * row + n] * (L ? weight[L ? l : 0] : load<T, V>(w + (e * count + l) * V));
      total[n] += coupling * load<T, V>(x + n * V);
    }
  }
  for (int n = 0; n < N; ++n) store<T, V>(sums + n * V, total[n]);
}

// Ranks [0, N) of one block in the adjoint: sums of the node, and what each edge gives along r and
// along both angles (`along` [batch][3][V]). The scalar harmonic has no slope along angles.
template <typename T, int L, int N>
TDN_INLINE void adjoint_tile(const EdgeBatch<T> &batch, const T *g, int64_t node_stride, const T *u,
                             const T *b, const T *b1, const T *b2, int64_t degrees, int64_t row,
                             const T *w, const T *dw, T *along, T *sums)
{
  constexpr int V = width<T>;
  constexpr int M = L ? L : 1;
  const int64_t count = L ? L : degrees;
  Vector<T, V> total[N];
  for (int n = 0; n < N; ++n) total[n] = load<T, V>(sums + n * V);
  for (int e = 0; e < batch.count; ++e) {
    const T *const x = g + batch.node[e] * node_stride;
    const int64_t at = e * count * row;
    Vector<T, V> radial = load<T, V>(along + 3 * e * V);
    Vector<T, V> angle1 = load<T, V>(along + (3 * e + 1) * V);
    Vector<T, V> angle2 = load<T, V>(along + (3 * e + 2) * V);
    if constexpr (L > 0) {
      Vector<T, V> weight[M], q[M] = {}, q1[M] = {}, q2[M] = {};
      constexpr int curved = L > 1 ? 1 : 0;
      for (int l = 0; l < L; ++l) weight[l] = load<T, V>(w + (e * count + l) * V);
      for (int n = 0; n < N; ++n) {
        const Vector<T, V> gradient = load<T, V>(x + n * V);
        const Vector<T, V> product = gradient * load<T, V>(u + n * V);
        Vector<T, V> coupling = b[at + n] * weight[0];
        for (int l = 1; l < L; ++l) coupling += b[at + l * row + n] * weight[l];
        total[n] += coupling * gradient;
        for (int l = 0; l < L; ++l) q[l] += b[at + l * row + n] * product;
        for (int l = curved; l < L; ++l) q1[l] += b1[at + l * row + n] * product;
        for (int l = curved; l < L; ++l) q2[l] += b2[at + l * row + n] * product;
      }
      for (int l = 0; l < L; ++l) radial += q[l] * load<T, V>(dw + (e * count + l) * V);
      for (int l = curved; l < L; ++l) angle1 += q1[l] * weight[l];
      for (int l = curved; l < L; ++l) angle2 += q2[l] * weight[l];
    } else {
      for (int n = 0; n < N; ++n) {
        const Vector<T, V> gradient = load<T, V>(x + n * V);
        const Vector<T, V> product = gradient * load<T, V>(u + n * V);
        Vector<T, V> coupling = {};
        for (int64_t l = 0; l < count; ++l) {
          const Vector<T, V> weight = load<T, V>(w + (e * count + l) * V);
          const int64_t k = at + l * row + n;
          coupling += b[k] * weight;
          radial += b[k] * (product * load<T, V>(dw + (e * count + l) * V));
          angle1 += b1[k] * (product * weight);
          angle2 += b2[k] * (product * weight);
        }
        total[n] += coupling * gradient;
      }
    }
    store<T, V>(along + 3 * e * V, radial);
    store<T, V>(along + (3 * e + 1) * V, angle1);
    store<T, V>(along + (3 * e + 2) * V, angle2);
  }
  for (int n = 0; n < N; ++n) store<T, V>(sums + n * V, total[n]);
}

}    // namespace
}    // namespace tdn

#endif
