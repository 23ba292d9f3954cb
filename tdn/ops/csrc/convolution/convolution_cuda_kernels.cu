#include "convolution_cuda_kernels.h"

#include "edge_cuda.h"
#include "common/launch.h"

#include <cmath>

// A block of threads takes the edges of one node in batches. What all channels or all ranks have in
// common is computed once per batch, into shared memory: harmonics Y [D], harmonics in rank space
// b [L, R] and radial weights w [L, C]. Then a thread sums one channel of N ranks over the batch.
//
// Flops and bytes. Per edge: 2 R C (L + 1) flops forward, 2 R C (3 L + 2) in the adjoint, beside
// D R + L C p multiply-adds for b and w with polynomials of order p. From memory come R C numbers
// of u (of g in the adjoint) and (p + 1) L C of the table, which all atoms share. In float32 at the
// default size (R = 17, C = 64, L = 3) that is 9 and 24 kflop for 4.4 kB: like cp_message bound by
// the rows of features, but nothing else of the size of the edges is ever read or written.

namespace tdn::cuda {
namespace {

constexpr const char *bad_indices =
    "convolution: edges or species have indices out of range; take edges from sort_edges";

// How the work of a node is cut: passes over `lanes` channels and `tiles` groups of N ranks, a
// thread for each pair of them, with batches of as many edges as shared memory holds.
constexpr int max_threads = 192;
constexpr int ranks = 6;    // N: fits 6, 17, 32 and 62 ranks (l_max 1 to 4) with little left over

template <typename T, bool adjoint> struct Shape {
  static constexpr int kinds = adjoint ? 3 : 1;      // of y and b: value, slopes along two angles
  static constexpr int slopes = adjoint ? 2 : 1;     // of w: value, slope along the distance
  int components, degrees, lanes, tiles, batch;
  int working;    // threads with a channel and ranks; the others help with what is shared

  Shape(int64_t l_max, int64_t degrees_, int64_t rank, int64_t channels) :
      components(static_cast<int>((l_max + 1) * (l_max + 1))), degrees(static_cast<int>(degrees_))
  {
    lanes = static_cast<int>(channels < 64 ? channels : 64);
    const int64_t needed = (rank + ranks - 1) / ranks;
    tiles = max_threads / lanes < 16 ? max_threads / lanes : 16;
    if (needed < tiles) tiles = static_cast<int>(needed);
    working = lanes * tiles;
    batch = 16;
    while (batch > 1 && bytes() > Block::max_shared) batch /= 2;
  }

  int threads() const { return (working + warp_threads - 1) / warp_threads * warp_threads; }

  int bytes() const
  {
    const int numbers = kinds * components + kinds * degrees * tiles * ranks +
        slopes * degrees * lanes + 12 + (adjoint ? 3 * (working + 1) : 0);
    return batch * (numbers * static_cast<int>(sizeof(T)) + 3 * 8) + 16;
  }
};

// The parts of shared memory; pointers to quantities of the edges of a batch.
template <typename T, bool adjoint> struct Parts {
  int64_t *edge, *node, *row;    // node: the other end; row: where its coefficients start
  T *b, *w, *y, *s, *slope, *inverse_r, *unit, *tangents, *along, *partial;

  TDN_DEVICE Parts(char *memory, const Shape<T, adjoint> &shape)
  {
    edge = reinterpret_cast<int64_t *>(memory);
    node = edge + shape.batch;
    row = node + shape.batch;
    // [kinds][batch][L][tiles * ranks], read in pairs
    b = reinterpret_cast<T *>(row + shape.batch + shape.batch % 2);
    // [slopes][batch][L][lanes]
    w = b + shape.kinds * shape.batch * shape.degrees * shape.tiles * ranks;
    // [kinds][D][batch]
    y = w + shape.slopes * shape.batch * shape.degrees * shape.lanes;
    s = y + shape.kinds * shape.components * shape.batch;
    slope = s + shape.batch;    // ds/dr
    inverse_r = slope + shape.batch;
    unit = inverse_r + shape.batch;          // [3][batch]
    tangents = unit + 3 * shape.batch;       // [2][3][batch]
    along = tangents + 6 * shape.batch;      // [batch][3]: sums along s and both angles
    partial = along + 3 * shape.batch;       // [batch][3][threads that work]
  }
};

// What a thread sums: one channel, N ranks.
template <typename T> struct Sums {
  T of[ranks], u[ranks];
};

template <typename T, bool adjoint> struct Convolution {
  EdgeConvolution<T> a;
  Shape<T, adjoint> shape;
  LegendreCoefficients<T> legendre;

  TDN_DEVICE void operator()(int64_t node, const Block &block) const
  {
    const Parts<T, adjoint> parts(block.shared, shape);
    const int64_t first = a.edges.ptr[node], last = a.edges.ptr[node + 1];
    TDN_DEVICE_CHECK(first >= 0 && first <= last && last <= a.num_edges, bad_indices);
    for (int64_t c = 0; c < a.channels; c += shape.lanes)
      for (int64_t r = 0; r < a.rank; r += shape.tiles * ranks) {
        PerThread<Sums<T>, Block::max_threads> sums;
        block.each([&](int thread) { begin(sums[thread], node, c, r, thread); });
        for (int64_t k = first; k < last; k += shape.batch) {
          const int count = last - k < shape.batch ? static_cast<int>(last - k) : shape.batch;
          block.sync();    // the last batch has been used
          block.each([&](int thread) {
            if (thread < count) prepare_edge(parts, node, k + thread, thread);
          });
          block.sync();
          block.each([&](int thread) {
            couple(parts, r, count, thread, block.threads);
            radial_weights(parts, c, count, thread, block.threads);
          });
          block.sync();
          block.each([&](int thread) {
            if (thread < shape.working) add_batch(parts, sums[thread], c, r, count, thread);
          });
          if constexpr (adjoint) store_gradients(parts, c + r > 0, count, block);
        }
        block.each([&](int thread) { finish(sums[thread], node, c, r, thread); });
      }
  }

  // First rank and the channel of a thread.
  TDN_DEVICE int64_t rank_of(int64_t r, int thread) const
  {
    return r + thread / shape.lanes * ranks;
  }
  TDN_DEVICE int64_t channel_of(int64_t c, int thread) const { return c + thread % shape.lanes; }

  TDN_DEVICE void begin(Sums<T> &sums, int64_t node, int64_t c, int64_t r, int thread) const
  {
    const int64_t rank = rank_of(r, thread), channel = channel_of(c, thread);
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n) {
      sums.of[n] = 0;
      sums.u[n] = 1;
      if (adjoint && a.u && channel < a.channels && rank + n < a.rank)
        sums.u[n] = a.u[(node * a.rank + rank + n) * a.channels + channel];
    }
  }

  TDN_DEVICE void finish(const Sums<T> &sums, int64_t node, int64_t c, int64_t r, int thread) const
  {
    const int64_t rank = rank_of(r, thread), channel = channel_of(c, thread);
    if (!a.out || thread >= shape.working || channel >= a.channels) return;
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      if (rank + n < a.rank)
        a.out[(node * a.rank + rank + n) * a.channels + channel] = sums.of[n];
  }

  // Place in the table, unit vector, tangents and harmonics of edge number `i` of the batch.
  TDN_DEVICE void prepare_edge(const Parts<T, adjoint> &parts, int64_t node, int64_t k, int i) const
  {
    const RadialTable<T> &table = a.edges.table;
    const int64_t e = a.edges.order ? a.edges.order[k] : k;
    TDN_DEVICE_CHECK(e >= 0 && e < a.num_edges, bad_indices);
    const int64_t center = a.edges.center[e], neighbor = a.edges.neighbor[e];
    TDN_DEVICE_CHECK(center >= 0 && center < a.num_centers && center < a.num_nodes &&
                         neighbor >= 0 && neighbor < a.num_nodes &&
                         node == (adjoint ? neighbor : center),
                     bad_indices);
    const int64_t species = a.edges.species[center], other = a.edges.species[neighbor];
    TDN_DEVICE_CHECK(species >= 0 && species < table.num_species && other >= 0 &&
                         other < table.num_species,
                     bad_indices);
    const double *const v = a.edges.vec + 3 * e;
    const double r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    const Interval<T> interval = find_interval(table, r);
    const bool inside = r < table.r_max;    // false as well where r is not a number
    const int64_t table_blocks = (a.channels + table_block - 1) / table_block;
    parts.edge[i] = e;
    parts.node[i] = adjoint ? center : neighbor;
    parts.row[i] = -1;    // beyond the cutoff, all weights are zero
    if (inside)
      parts.row[i] = ((species * table.num_species + other) * table.intervals + interval.number) *
          table_blocks * table.degrees * (table.order + 1) * table_block;
    parts.s[i] = interval.s;
    parts.slope[i] = interval.slope;
    parts.inverse_r[i] = static_cast<T>(1 / r);
    T n[3], t[2][3];
    for (int d = 0; d < 3; ++d) n[d] = parts.unit[d * shape.batch + i] = static_cast<T>(v[d] / r);
    if constexpr (adjoint) {
      find_tangents(n, t);
      for (int j = 0; j < 2; ++j)
        for (int d = 0; d < 3; ++d) parts.tangents[(j * 3 + d) * shape.batch + i] = t[j][d];
    }
    edge_harmonics<T, adjoint>(n, t, static_cast<int>(a.l_max), legendre, shape.batch,
                               shape.components * shape.batch, parts.y + i);
  }

  // b[l, r] = sum_m harmonics[(l, m), r] Y_lm, or one row of sums where all degrees share weights.
  TDN_DEVICE void couple(const Parts<T, adjoint> &parts, int64_t r, int count, int thread,
                         int threads) const
  {
    const int width = shape.tiles * ranks, per_edge = shape.degrees * width;
    for (int item = thread; item < shape.kinds * count * per_edge; item += threads) {
      const int column = item % width, l = item / width % shape.degrees;
      const int e = item / per_edge % count, kind = item / per_edge / count;
      const int begin = shape.degrees > 1 ? l * l : 0;
      const int end = shape.degrees > 1 ? (l + 1) * (l + 1) : shape.components;
      const T *const y = parts.y + kind * shape.components * shape.batch + e;
      T total = 0;
      if (r + column < a.rank)
        for (int k = begin; k < end; ++k)
          total += y[k * shape.batch] * a.harmonics[k * a.rank + r + column];
      parts.b[((kind * shape.batch + e) * shape.degrees + l) * width + column] = total;
    }
  }

  TDN_DEVICE void radial_weights(const Parts<T, adjoint> &parts, int64_t c, int count, int thread,
                                 int threads) const
  {
    const RadialTable<T> &table = a.edges.table;
    const int order = static_cast<int>(table.order), per_edge = shape.degrees * shape.lanes;
    for (int item = thread; item < count * per_edge; item += threads) {
      const int lane = item % shape.lanes, l = item / shape.lanes % shape.degrees;
      const int e = item / per_edge;
      const int64_t channel = c + lane;
      T value = 0, slope = 0;
      if (parts.row[e] >= 0 && channel < a.channels) {
        const T *const row = table.values + parts.row[e] +
            (channel / table_block * shape.degrees + l) * (order + 1) * table_block +
            channel % table_block;
        value = row[order * table_block];
        for (int k = order - 1; k >= 0; --k) {
          slope = slope * parts.s[e] + value;
          value = value * parts.s[e] + row[k * table_block];
        }
      }
      const int at = (e * shape.degrees + l) * shape.lanes + lane;
      parts.w[at] = value;
      if constexpr (adjoint)
        parts.w[shape.batch * per_edge + at] = slope;
    }
  }

  TDN_DEVICE void add_batch(const Parts<T, adjoint> &parts, Sums<T> &sums, int64_t c, int64_t r,
                            int count, int thread) const
  {
    const int width = shape.tiles * ranks, lane = thread % shape.lanes;
    const int64_t rank = rank_of(r, thread), channel = channel_of(c, thread);
    const T *const x = adjoint ? a.g : a.u;
    for (int e = 0; e < count; ++e) {
      T row[ranks], coupling[ranks] = {}, product[ranks];
      TDN_UNROLL
      for (int n = 0; n < ranks; ++n) {
        row[n] = 0;
        if (channel < a.channels && rank + n < a.rank)
          row[n] = x ? x[(parts.node[e] * a.rank + rank + n) * a.channels + channel] : T(1);
        product[n] = row[n] * sums.u[n];
      }
      T along[3] = {};
      for (int l = 0; l < shape.degrees; ++l) {
        const int at_w = (e * shape.degrees + l) * shape.lanes + lane;
        const int at_b = (e * shape.degrees + l) * width + thread / shape.lanes * ranks;
        const T weight = parts.w[at_w];
        T q[3] = {};
        TDN_UNROLL
        for (int n = 0; n < ranks; n += 2) {
          const Pack<T, 2> b = load<T, 2>(parts.b + at_b + n);
          TDN_UNROLL
          for (int i = 0; i < 2; ++i) {
            coupling[n + i] += b.value[i] * weight;
            q[0] += b.value[i] * product[n + i];
          }
          if constexpr (adjoint) {
            TDN_UNROLL
            for (int j = 1; j < 3; ++j) {
              const Pack<T, 2> slope =
                  load<T, 2>(parts.b + j * shape.batch * shape.degrees * width + at_b + n);
              TDN_UNROLL
              for (int i = 0; i < 2; ++i) q[j] += slope.value[i] * product[n + i];
            }
          }
        }
        if constexpr (adjoint) {
          along[0] += q[0] * parts.w[shape.batch * shape.degrees * shape.lanes + at_w];
          along[1] += q[1] * weight;
          along[2] += q[2] * weight;
        }
      }
      TDN_UNROLL
      for (int n = 0; n < ranks; ++n) sums.of[n] += coupling[n] * row[n];
      if constexpr (adjoint) {
        TDN_UNROLL
        for (int j = 0; j < 3; ++j) parts.partial[(e * 3 + j) * shape.working + thread] = along[j];
      }
    }
  }

  // Gradients of the edge vectors of a batch; `add` to those of earlier passes.
  TDN_DEVICE void store_gradients(const Parts<T, adjoint> &parts, bool add, int count,
                                  const Block &block) const
  {
    block.sync();
    block.each([&](int thread) {
      for (int item = thread; item < 3 * count; item += block.threads) {
        const T *const partial = parts.partial + item * shape.working;
        T total = 0;
        for (int k = 0; k < shape.working; ++k)    // not all threads at one bank of the memory
          total += partial[(k + item) % shape.working];
        parts.along[item] = total;
      }
    });
    block.sync();
    block.each([&](int thread) {
      if (thread >= count) return;
      const T *const along = parts.along + 3 * thread, inverse = parts.inverse_r[thread];
      const T radial = along[0] * parts.slope[thread];
      double *const out = a.grad_vec + 3 * parts.edge[thread];
      for (int d = 0; d < 3; ++d) {
        const T *const t = parts.tangents + d * shape.batch + thread;
        const T value = radial * parts.unit[d * shape.batch + thread] +
            along[1] * inverse * t[0] + along[2] * inverse * t[3 * shape.batch];
        out[d] = parts.row[thread] < 0 ? 0 : add ? out[d] + value : value;
      }
    });
  }
};

}    // namespace

// At most 168 registers of a thread in the adjoint and 112 forward.
template <typename T, bool adjoint> struct BlockLimits<Convolution<T, adjoint>> {
  static constexpr int threads = max_threads;
  static constexpr int blocks = sizeof(T) == 8 ? 1 : adjoint ? 2 : 3;
};

namespace {

template <typename T, bool adjoint>
int launch(const EdgeConvolution<T> &a, int64_t num_nodes, const Queue &queue)
{
  if (a.channels == 0 || a.rank == 0) return 0;
  const Shape<T, adjoint> shape(a.l_max, a.edges.table.degrees, a.rank, a.channels);
  const Convolution<T, adjoint> kernel{a, shape, LegendreCoefficients<T>(a.l_max)};
  return launch_blocks(kernel, num_nodes, shape.threads(), shape.bytes(), queue);
}

}    // namespace

template <typename T>
int launch_convolution(const EdgeConvolution<T> &a, const Queue &queue)
{
  return launch<T, false>(a, a.num_centers, queue);
}

template <typename T>
int launch_convolution_adjoint(const EdgeConvolution<T> &a, const Queue &queue)
{
  return launch<T, true>(a, a.num_nodes, queue);
}

template int launch_convolution(const EdgeConvolution<float> &, const Queue &);
template int launch_convolution(const EdgeConvolution<double> &, const Queue &);
template int launch_convolution_adjoint(const EdgeConvolution<float> &, const Queue &);
template int launch_convolution_adjoint(const EdgeConvolution<double> &, const Queue &);

}    // namespace tdn::cuda
