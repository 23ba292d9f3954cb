// A batch of edges with their spherical harmonics and radial weights, for the convolution kernels.
// Included by files that are compiled once per instruction set; everything is internal to them.

#ifndef TDN_EDGE_BATCH_H
#define TDN_EDGE_BATCH_H

#include "convolution_kernels.h"
#include "common/legendre.h"
#include "common/vector.h"

namespace tdn {
namespace {

// Edges that are worked on together: what they need stays in the first-level cache.
constexpr int batch_size = 16;

// Quantities of the edges of a batch, one array each. Pointers lead into scratch memory.
template <typename T> struct EdgeBatch {
  int count = 0;
  int64_t edge[batch_size], node[batch_size];    // node: the other end
  const T *row[batch_size];                      // coefficients of the interval
  alignas(64) T s[batch_size], slope[batch_size];    // position in the interval, -1..1; ds/dr
  alignas(64) T n[3][batch_size];                // unit vector
  alignas(64) T t[2][3][batch_size];             // two tangents
  alignas(64) T inverse_r[batch_size];
  T *y, *dy[2];    // [D][batch_size] harmonics and derivatives along the tangents (angle)
};

// How the interval of a distance is found, and where its coefficients are.
template <typename T> struct TableIndex {
  const RadialTable<T> &table;
  int64_t row;    // numbers of an interval of a pair of species
  double scale, offset;

  TableIndex(const RadialTable<T> &table, int64_t blocks) : table(table)
  {
    const int64_t table_blocks = (blocks * width<T> + table_block - 1) / table_block;
    row = table_blocks * table.degrees * (table.order + 1) * table_block;
    scale = (1 + table.stretch) * static_cast<double>(table.intervals);
    offset = table.stretch * table.r_max;
  }

  // Entry `e` of the batch: the vector from center to neighbor, its square, the pair of species.
  TDN_INLINE void set(EdgeBatch<T> &batch, int e, const double *v, double r2, int64_t pair) const
  {
    const double r = __builtin_sqrt(r2), inverse = 1 / r;
    for (int d = 0; d < 3; ++d) batch.n[d][e] = static_cast<T>(v[d] * inverse);
    batch.inverse_r[e] = static_cast<T>(inverse);
    const double inverse_sum = 1 / (r + offset), x = scale * r * inverse_sum;
    // not a number leads to the first interval, and from there into the result
    int64_t interval = x > 0 ? static_cast<int64_t>(x) : 0;
    if (interval >= table.intervals) interval = table.intervals - 1;
    batch.s[e] = static_cast<T>(2 * (x - static_cast<double>(interval)) - 1);
    batch.slope[e] = static_cast<T>(2 * scale * offset * inverse_sum * inverse_sum);
    batch.row[e] = table.values + (pair * table.intervals + interval) * row;
  }
};

// The rest of the arrays is computed, but never used.
template <typename T> TDN_INLINE void fill_rest(EdgeBatch<T> &batch, int count)
{
  for (int e = count; e < batch_size; ++e) {
    for (int d = 0; d < 3; ++d) batch.n[d][e] = d == 2;
    batch.inverse_r[e] = 1;
  }
  batch.count = count;
}

// Take the next edges of node `i`, from `k` on; those at the cutoff and beyond count for nothing.
// In the order by neighbor (`edges.order`) the node is the neighbor of its edges.
template <typename T>
TDN_INLINE int64_t fill(EdgeBatch<T> &batch, const EdgeList<T> &edges, int64_t blocks, int64_t i,
                        int64_t k, double *grad_vec)
{
  const RadialTable<T> &table = edges.table;
  const TableIndex<T> index(table, blocks);
  int count = 0;
  for (; k < edges.ptr[i + 1] && count < batch_size; ++k) {
    const int64_t e = edges.order ? edges.order[k] : k;
    const double *const v = edges.vec + 3 * e;
    const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (r2 >= table.r_max * table.r_max) {
      if (grad_vec)
        for (int d = 0; d < 3; ++d) grad_vec[3 * e + d] = 0;
      continue;
    }
    const int64_t center = edges.order ? edges.center[e] : i;
    const int64_t neighbor = edges.neighbor[e];
    index.set(batch, count, v, r2,
              edges.species[center] * table.num_species + edges.species[neighbor]);
    batch.edge[count] = e;
    batch.node[count] = edges.order ? center : neighbor;
    ++count;
  }
  fill_rest(batch, count);
  return k;
}

// Two unit vectors perpendicular to n and to each other (Duff et al., JCGT 6 (2017) 1).
template <typename T> TDN_INLINE void find_tangents(EdgeBatch<T> &batch)
{
  for (int e = 0; e < batch_size; ++e) {
    const T x = batch.n[0][e], y = batch.n[1][e], z = batch.n[2][e];
    const T sign = z < 0 ? T(-1) : T(1);
    const T a = -1 / (sign + z), b = x * y * a;
    batch.t[0][0][e] = 1 + sign * x * x * a;
    batch.t[0][1][e] = sign * b;
    batch.t[0][2][e] = -sign * x;
    batch.t[1][0][e] = b;
    batch.t[1][1][e] = sign + y * y * a;
    batch.t[1][2][e] = -y;
  }
}

// Real spherical harmonics in the order and normalization of e3nn, whose polar axis is y:
// Y_l,+-m = Q_l^m(y) times real and imaginary part of (z + i x)^m.
template <typename T, bool derivatives>
TDN_INLINE void spherical_harmonics(EdgeBatch<T> &batch, int64_t l_max,
                                    const LegendreCoefficients<T> &legendre)
{
  if (derivatives) find_tangents(batch);
  const auto &n = batch.n;
  T re[batch_size], im[batch_size], re_before[batch_size], im_before[batch_size];
  for (int e = 0; e < batch_size; ++e) {
    re[e] = 1;
    im[e] = re_before[e] = im_before[e] = 0;
  }
  for (int64_t m = 0; m <= l_max; ++m) {
    T q[batch_size], q_before[batch_size], dq[batch_size], dq_before[batch_size];
    for (int e = 0; e < batch_size; ++e) {
      q[e] = legendre.first[m];
      q_before[e] = dq[e] = dq_before[e] = 0;
    }
    for (int64_t l = m; l <= l_max; ++l) {
      if (l > m) {
        const T a = legendre.a[l][m], b = legendre.b[l][m];
        for (int e = 0; e < batch_size; ++e) {
          const T next = a * (n[1][e] * q[e] - b * q_before[e]);
          if (derivatives) {
            const T slope = a * (q[e] + n[1][e] * dq[e] - b * dq_before[e]);
            dq_before[e] = dq[e];
            dq[e] = slope;
          }
          q_before[e] = q[e];
          q[e] = next;
        }
      }
      const int64_t even = (l * l + l + m) * batch_size, odd = (l * l + l - m) * batch_size;
      for (int e = 0; e < batch_size; ++e) batch.y[even + e] = q[e] * re[e];
      if (m > 0)
        for (int e = 0; e < batch_size; ++e) batch.y[odd + e] = q[e] * im[e];
      if (derivatives) {
        const T power = static_cast<T>(m);
        for (int k = 0; k < 2; ++k) {
          const auto &t = batch.t[k];
          for (int e = 0; e < batch_size; ++e) {
            const T along = dq[e] * t[1][e], factor = power * q[e];
            batch.dy[k][even + e] =
                along * re[e] + factor * (re_before[e] * t[2][e] - im_before[e] * t[0][e]);
            if (m > 0)
              batch.dy[k][odd + e] =
                  along * im[e] + factor * (im_before[e] * t[2][e] + re_before[e] * t[0][e]);
          }
        }
      }
    }
    for (int e = 0; e < batch_size; ++e) {
      const T next = re[e] * n[2][e] - im[e] * n[0][e];
      re_before[e] = re[e];
      im_before[e] = im[e];
      im[e] = re[e] * n[0][e] + im[e] * n[2][e];
      re[e] = next;
    }
  }
}

// Radial weights of one edge for the channels of a block, and their slopes in s.
template <typename T, int L, bool derivatives>
TDN_INLINE void radial_weights(const T *row, T s, int64_t order, int64_t degrees, T *w, T *dw)
{
  constexpr int V = width<T>;
  const int64_t count = L ? L : degrees;
  for (int64_t l = 0; l < count; ++l) {
    const T *const c = row + l * (order + 1) * table_block;
    Vector<T, V> value = load<T, V>(c + order * table_block), slope = {};
    for (int64_t k = order - 1; k >= 0; --k) {
      if (derivatives) slope = slope * s + value;
      value = value * s + load<T, V>(c + k * table_block);
    }
    store<T, V>(w + l * V, value);
    if (derivatives) store<T, V>(dw + l * V, slope);
  }
}

// Coefficients of the first channel of block `b` within a row of the table.
template <typename T> TDN_INLINE int64_t block_in_row(const RadialTable<T> &table, int64_t b)
{
  const int64_t channel = b * width<T>;
  return channel / table_block * table.degrees * (table.order + 1) * table_block +
      channel % table_block;
}

// Gradient of an edge vector from the derivatives along r (in s) and along the two angles.
template <typename T>
TDN_INLINE void edge_gradient(const EdgeBatch<T> &batch, int e, const T *along, double *gradient)
{
  constexpr int V = width<T>;
  const T radial = sum<T, V>(load<T, V>(along)) * batch.slope[e];
  const T angle1 = sum<T, V>(load<T, V>(along + V)) * batch.inverse_r[e];
  const T angle2 = sum<T, V>(load<T, V>(along + 2 * V)) * batch.inverse_r[e];
  for (int d = 0; d < 3; ++d)
    gradient[d] = radial * batch.n[d][e] + angle1 * batch.t[0][d][e] + angle2 * batch.t[1][d][e];
}

inline int64_t scratch_size(int64_t l_max, int64_t degrees, int64_t rank, int64_t blocks)
{
  const int64_t components = (l_max + 1) * (l_max + 1);
  constexpr int V = width<float>;    // of float64 there are half as many
  const int64_t row = (rank + V - 1) / V * V;
  return batch_size * (3 * components + 3 * degrees * row + 2 * degrees * V + 3 * V) +
      blocks * rank * V + 64;
}

// Parts of the scratch memory.
template <typename T> struct Scratch {
  T *y, *b[3], *w, *dw, *along, *sums;
  Scratch(T *p, int64_t l_max, int64_t degrees, int64_t rank, EdgeBatch<T> &batch)
  {
    constexpr int V = width<T>;
    const int64_t components = (l_max + 1) * (l_max + 1);
    const auto take = [&p](int64_t count) {
      T *const start = p;
      p += count;
      return start;
    };
    w = take(batch_size * degrees * V);
    dw = take(batch_size * degrees * V);
    along = take(batch_size * 3 * V);
    batch.y = take(batch_size * components);
    batch.dy[0] = take(batch_size * components);
    batch.dy[1] = take(batch_size * components);
    for (T *&part : b) part = take(batch_size * degrees * ((rank + V - 1) / V * V));
    sums = take(0);
  }
};

}    // namespace
}    // namespace tdn

#endif
