// How a block of threads walks over the pairs of one center: which are within the cutoff, what all
// threads need of them, in shared memory, and where forces go. Included by .cu files.

#ifndef TDN_CUDA_PAIR_BLOCK_H
#define TDN_CUDA_PAIR_BLOCK_H

#include "pair_cuda_kernels.h"
#include "convolution/edge_cuda.h"

#include <cmath>

namespace tdn::cuda {
namespace {

constexpr const char *bad_pairs = "pairs: list or species have indices out of range";

TDN_DEVICE bool in_range(int64_t index, int64_t least, int64_t end)
{
  return index >= least && index < end;
}

TDN_DEVICE int count_bits(uint64_t word)
{
#ifdef __CUDA_ARCH__
  return __popcll(word);
#else
  return __builtin_popcountll(word);
#endif
}

// The other end of a pair of the list, and the vector to it.
struct Neighbor {
  int64_t node;    // -1: none
  double d[3], r2;
};

template <typename T>
TDN_DEVICE Neighbor neighbor_of(const PairList<T> &pairs, int64_t num_rows, int64_t i, int64_t k)
{
  const int64_t row = pairs.other[k], home = pairs.center[i];
  TDN_DEVICE_CHECK(in_range(row, 0, num_rows) && in_range(home, 0, num_rows), bad_pairs);
  Neighbor result{pairs.node[row], {}, 0};
  TDN_DEVICE_CHECK(in_range(result.node, -1, pairs.num_nodes), bad_pairs);
  for (int d = 0; d < 3; ++d) {
    result.d[d] = pairs.positions[3 * row + d] - pairs.positions[3 * home + d];
    result.r2 += result.d[d] * result.d[d];
  }
  return result;
}

// The pairs of a center that are within the cutoff, in the order of the list. Candidates are looked
// at by 32 threads at once; those that count wait in a ring.
struct PairQueue {
  static constexpr int candidates = 32, size = 2 * candidates;
  unsigned char *flags;    // [candidates], read as words
  int *waiting;            // [size] numbers of pairs of the center
  int num_pairs;           // candidates, of which `next` have been looked at
  int next = 0, head = 0, tail = 0;

  TDN_DEVICE PairQueue(unsigned char *flags_, int *waiting_, int num_pairs_) :
      flags(flags_), waiting(waiting_), num_pairs(num_pairs_)
  {
  }

  TDN_DEVICE int count() const { return tail - head; }
  TDN_DEVICE int operator[](int e) const { return waiting[(head + e) % size]; }

  // Until `wanted` pairs wait (at most 32) or no candidates are left. inside(k): whether pair k of
  // the center counts. Called by all threads of the block; what waits may be read after one more
  // barrier.
  template <typename F>
  TDN_DEVICE void fill(int wanted, const Block &block, int thread, const F &inside)
  {
    while (count() < wanted && next < num_pairs) {
      block.sync();    // flags have been read
      bool mine = false;
      if (thread < candidates) {
        mine = next + thread < num_pairs && inside(next + thread);
        flags[thread] = mine;
      }
      block.sync();
      int before = 0, all = 0;
      const auto *const words = reinterpret_cast<const uint64_t *>(flags);
      TDN_UNROLL
      for (int w = 0; w < candidates / 8; ++w) {
        const int first = thread - 8 * w;    // flags of this word before the thread's own
        const uint64_t word = words[w];
        all += count_bits(word);
        if (first > 0) before += count_bits(first < 8 ? word & ((1ull << 8 * first) - 1) : word);
      }
      if (mine) waiting[(tail + before) % size] = next + thread;
      tail += all;
      next += candidates;
    }
  }
};

// Places of consecutive parts of shared memory, each at a multiple of 16 bytes.
struct SharedParts {
  int bytes = 0;

  template <typename X> int take(int count)
  {
    const int start = bytes;
    bytes += (count * static_cast<int>(sizeof(X)) + 15) / 16 * 16;
    return start;
  }
};

template <typename X> TDN_DEVICE X *at(const Block &block, int place)
{
  return reinterpret_cast<X *>(block.shared + place);
}

template <typename T> struct alignas(16) Four {
  T value[4];
};

enum class Pass { forward, adjoint, centroid };    // the last: adjoint with virials at neighbors

// What a thread of an adjoint adds up over all pairs.
template <typename T, Pass pass> struct Totals {
  T force[3] = {}, virial[9] = {}, centroid[pass == Pass::centroid ? 9 : 1] = {};
};

// The pairs of one center, up to 32 at a time: geometry and harmonics Y [D], a thread for each.
template <typename T, Pass pass> struct PairBlock {
  static constexpr bool adjoint = pass != Pass::forward;
  static constexpr int kinds = adjoint ? 3 : 1;         // of harmonics: value, slopes along angles
  static constexpr int directions = adjoint ? 2 : 1;    // edges of a pair
  // sums of a thread: force, virial, virial at the neighbor; and parts in which they are added up
  static constexpr int num_totals = pass == Pass::centroid ? 21 : adjoint ? 12 : 0, parts = 8;

  PairWalk<T> a;
  LegendreCoefficients<T> legendre;
  int components, chunk;
  // Places in shared memory, [chunk] each: the other end, where the coefficients of both edges
  // start in the table (-1: no edge), place in the interval, what d is multiplied with (unit vector
  // times ds/dr, tangents over r; 4th: d), harmonics [kinds][D][chunk].
  int flags, waiting, node, row[2], s, along, angle1, angle2, y;
  int thread_totals, part_totals;

  explicit PairBlock(const PairWalk<T> &walk) :
      a(walk), legendre(walk.l_max),
      components(static_cast<int>((walk.l_max + 1) * (walk.l_max + 1))), chunk(32)
  {
  }

  void place(SharedParts &shared)
  {
    flags = shared.take<unsigned char>(PairQueue::candidates);
    waiting = shared.take<int>(PairQueue::size);
    node = shared.take<int>(chunk);
    for (int k = 0; k < 2; ++k) row[k] = shared.take<int64_t>(chunk);
    s = shared.take<T>(chunk);
    along = shared.take<Four<T>>(adjoint ? chunk : 0);
    angle1 = shared.take<Four<T>>(adjoint ? chunk : 0);
    angle2 = shared.take<Four<T>>(adjoint ? chunk : 0);
    y = shared.take<T>(kinds * components * chunk);
  }

  // Of threads with work; may be in the place of what is not needed at the end.
  void place_totals(SharedParts &shared, int threads)
  {
    thread_totals = shared.take<T>(num_totals * (threads + parts));
    part_totals = shared.take<T>(num_totals * parts);
  }

  TDN_DEVICE int check(int64_t i) const    // number of candidates
  {
    const int64_t begin = a.pairs.ptr[i], end = a.pairs.ptr[i + 1];
    TDN_DEVICE_CHECK(begin >= 0 && begin <= end && end <= a.num_pairs, bad_pairs);
    TDN_DEVICE_CHECK(in_range(a.pairs.species[i], 0, a.pairs.table.num_species), bad_pairs);
    return static_cast<int>(end - begin);
  }

  TDN_DEVICE PairQueue queue_of(const Block &block, int num_pairs) const
  {
    return {at<unsigned char>(block, flags), at<int>(block, waiting), num_pairs};
  }

  // Prepares the next pairs of center `i` and says how many; they may be read after a barrier.
  TDN_DEVICE int take(const Block &block, int64_t i, PairQueue &queue, int thread) const
  {
    const int64_t begin = a.pairs.ptr[i];
    queue.fill(chunk, block, thread, [&](int k) { return counts(i, begin + k); });
    const int count = queue.count() < chunk ? queue.count() : chunk;
    block.sync();    // pairs wait; the last chunk has been used
    for (int e = thread; e < count; e += block.threads) prepare(block, i, begin + queue[e], e);
    queue.head += count;
    return count;
  }

  TDN_DEVICE bool comes_in(int64_t other) const
  {
    return in_range(other, a.incoming_begin, a.incoming_end);
  }

  TDN_DEVICE bool counts(int64_t i, int64_t k) const
  {
    const Neighbor neighbor = neighbor_of(a.pairs, a.num_rows, i, k);
    if (neighbor.node < 0 || (adjoint && !a.outgoing && !comes_in(neighbor.node))) return false;
    const double r_max = a.pairs.table.r_max;
    return !(neighbor.r2 >= r_max * r_max);    // not a number goes on into the result
  }

  TDN_DEVICE int64_t row_of(int64_t center, int64_t neighbor, int64_t interval) const
  {
    const RadialTable<T> &table = a.pairs.table;
    const int64_t blocks = (a.channels + table_block - 1) / table_block;
    return ((center * table.num_species + neighbor) * table.intervals + interval) * blocks *
        table.degrees * (table.order + 1) * table_block;
  }

  // Entry `e` of the chunk: pair k of the list.
  TDN_DEVICE void prepare(const Block &block, int64_t i, int64_t k, int e) const
  {
    const RadialTable<T> &table = a.pairs.table;
    const Neighbor neighbor = neighbor_of(a.pairs, a.num_rows, i, k);
    const int64_t j = neighbor.node, own = a.pairs.species[i], other = a.pairs.species[j];
    TDN_DEVICE_CHECK(in_range(other, 0, table.num_species), bad_pairs);
    const double r = sqrt(neighbor.r2), inverse = 1 / r;
    const Interval<T> interval = find_interval(table, r);
    at<int>(block, node)[e] = static_cast<int>(j);
    at<T>(block, s)[e] = interval.s;
    at<int64_t>(block, row[0])[e] =
        !adjoint || a.outgoing ? row_of(own, other, interval.number) : -1;
    T n[3], t[2][3] = {};
    for (int d = 0; d < 3; ++d) n[d] = static_cast<T>(neighbor.d[d] * inverse);
    if constexpr (adjoint) {
      at<int64_t>(block, row[1])[e] = comes_in(j) ? row_of(other, own, interval.number) : -1;
      find_tangents(n, t);
      Four<T> of[3];
      const T per_r = static_cast<T>(inverse);
      for (int d = 0; d < 3; ++d) {
        of[0].value[d] = interval.slope * n[d];
        of[1].value[d] = per_r * t[0][d];
        of[2].value[d] = per_r * t[1][d];
        of[d].value[3] = static_cast<T>(neighbor.d[d]);
      }
      at<Four<T>>(block, along)[e] = of[0];
      at<Four<T>>(block, angle1)[e] = of[1];
      at<Four<T>>(block, angle2)[e] = of[2];
    }
    edge_harmonics<T, adjoint>(n, t, static_cast<int>(a.l_max), legendre, chunk,
                               components * chunk, at<T>(block, y) + e);
  }

  // Coefficients of a degree for a channel in the row of an edge, lowest power first.
  TDN_DEVICE const T *coefficients(int64_t row_, int l, int channel) const
  {
    const RadialTable<T> &table = a.pairs.table;
    const int64_t degree = table.degrees == 1 ? 0 : l;    // one for all degrees
    return table.values + row_ + channel % table_block +
        (channel / table_block * table.degrees + degree) * (table.order + 1) * table_block;
  }

  // A degree's weights of V channels and their slopes, in the row of an edge.
  template <int V>
  TDN_DEVICE void polynomials(int64_t row_, int l, T s_, int channel, Pack<T, V> &value,
                              Pack<T, V> &slope) const
  {
    const int order = static_cast<int>(a.pairs.table.order);
    const T *const from = coefficients(row_, l, channel);
    value = load<T, V>(from + order * table_block);
    slope = {};
    for (int k = order - 1; k >= 0; --k) {
      const Pack<T, V> next = load<T, V>(from + k * table_block);
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        slope.value[v] = slope.value[v] * s_ + value.value[v];
        value.value[v] = value.value[v] * s_ + next.value[v];
      }
    }
  }

  // Derivatives of a pair's energy along s and both angles, by both edges or by the edge from the
  // center (then `in` has those by the edge to it), of this thread's share.
  TDN_DEVICE void add_pair(const Block &block, int e, const T (&slopes)[3], const T (&in)[3],
                           Totals<T, pass> &totals) const
  {
    const Four<T> radial = at<Four<T>>(block, along)[e];
    const Four<T> first = at<Four<T>>(block, angle1)[e];
    const Four<T> second = at<Four<T>>(block, angle2)[e];
    const T d[3] = {radial.value[3], first.value[3], second.value[3]};
    TDN_UNROLL
    for (int x = 0; x < 3; ++x) {
      T force = slopes[0] * radial.value[x] + slopes[1] * first.value[x] +
          slopes[2] * second.value[x];
      if constexpr (pass == Pass::centroid) {
        const T incoming =
            in[0] * radial.value[x] + in[1] * first.value[x] + in[2] * second.value[x];
        force += incoming;
        TDN_UNROLL
        for (int z = 0; z < 3; ++z) totals.centroid[3 * z + x] -= d[z] * incoming;
      }
      totals.force[x] += force;
      TDN_UNROLL
      for (int z = 0; z < 3; ++z) totals.virial[3 * z + x] -= d[z] * force;
    }
  }

  // Over the threads with work, in a fixed order. Called after a barrier.
  TDN_DEVICE void add_totals(const Block &block, int64_t i, const Totals<T, pass> &totals,
                             int working, int thread) const
  {
    const int stride = working + parts;    // for the banks
    if (thread < working) {
      T *const to = at<T>(block, thread_totals) + thread;
      TDN_UNROLL
      for (int k = 0; k < 3; ++k) to[k * stride] = totals.force[k];
      TDN_UNROLL
      for (int k = 0; k < 9; ++k) {
        to[(3 + k) * stride] = totals.virial[k];
        if constexpr (pass == Pass::centroid) to[(12 + k) * stride] = totals.centroid[k];
      }
    }
    block.sync();
    for (int item = thread; item < num_totals * parts; item += block.threads) {
      const T *const from = at<T>(block, thread_totals) + item / parts * stride;
      T total = 0;
      for (int k = item % parts; k < working; k += parts) total += from[k];
      at<T>(block, part_totals)[item] = total;
    }
    block.sync();
    for (int number = thread; number < num_totals; number += block.threads) {
      double total = 0;
      for (int k = 0; k < parts; ++k)
        total += static_cast<double>(at<T>(block, part_totals)[number * parts + k]);
      if (number < 3)
        a.sums.force[3 * i + number] += total;
      else if (number < 12)
        a.sums.virial[9 * i + number - 3] += 0.5 * total;
      else
        a.sums.centroid[9 * i + number - 12] += total;
    }
    block.sync();    // the next center may write
  }
};

}    // namespace
}    // namespace tdn::cuda

#endif
