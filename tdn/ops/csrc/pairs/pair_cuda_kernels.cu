#include "pair_cuda_block.h"

// A block of threads takes one center. Of a batch of its pairs all threads together compute
// harmonics in rank space b [L, R] and radial weights w [L, C]; then a thread adds up V channels of
// N ranks.
//
// Flops and bytes of a pair, with R ranks, C channels, L degrees: forward 2 R C (L + 1) flops and
// R C numbers of u; adjoint, both edges, 2 R C (8 L - 2) flops (six sums over ranks for each
// degree, two for the scalar; a coupling and its part of the gradient; two products) and 2 R C
// numbers of u and g; beside 2 L C p flops (adjoint: 8 L C p) for radial weights by polynomials of
// order p, and (p + 1) L C numbers of the table, which all atoms share, for each edge. In float32 at the default size (R 17,
// C 64, L 3, p 7) that is 11 and 59 kflop for 4.4 + 6.1 and 8.7 + 12.3 kB.

namespace tdn::cuda {
namespace {

constexpr int max_threads = 192;
constexpr int ranks = 6;    // N: fits 6, 17, 32 and 62 ranks (l_max 1 to 4) with little left over

// What a thread has of its channels and ranks.
template <typename T, int V> struct Rows {
  Pack<T, V> of[ranks];
};

// L: degrees if known when compiled, else 0.
template <typename T, int V, int L, Pass pass> struct Pairs : PairBlock<T, pass> {
  using Base = PairBlock<T, pass>;
  using Numbers = Pack<T, V>;
  using Base::a;
  using Base::adjoint;
  using Base::chunk;
  static constexpr int weights = adjoint ? 4 : 1;    // both edges, each value and slope

  // How the work of a center is cut: passes over `lanes` packs of channels and `tiles` groups of N
  // ranks, a thread for each pair of them; the other threads help with what is shared.
  int num_degrees, lanes, tiles, batch, working;
  int b, w;    // [kinds][batch][L][width], read in pairs; [weights][batch][L][channels]
  int bytes;

  explicit Pairs(const PairWalk<T> &walk) :
      Base(walk), num_degrees(static_cast<int>(walk.l_max + 1)),
      lanes(static_cast<int>(walk.channels / V < 32 ? walk.channels / V : 32)),
      tiles(max_threads / lanes < 16 ? max_threads / lanes : 16), batch(8)
  {
    const int64_t needed = (walk.rank + ranks - 1) / ranks;
    if (needed < tiles) tiles = static_cast<int>(needed);
    working = lanes * tiles;
    for (place(); bytes > Block::max_shared; place()) (batch > 1 ? batch : chunk) /= 2;
  }

  void place()
  {
    SharedParts shared;
    Base::place(shared);
    SharedParts totals = shared;    // in the place of b and w
    b = shared.take<T>(Base::kinds * batch * num_degrees * width());
    w = shared.take<T>(weights * batch * num_degrees * channels());
    Base::place_totals(totals, working);
    bytes = shared.bytes > totals.bytes ? shared.bytes : totals.bytes;
  }

  TDN_DEVICE int width() const { return tiles * ranks; }       // ranks of a pass
  TDN_DEVICE int channels() const { return lanes * V; }        // channels of a pass
  TDN_DEVICE int degrees() const { return L > 0 ? L : num_degrees; }
  int threads() const
  {
    const int wanted = working > width() ? working : width();
    return (wanted + warp_threads - 1) / warp_threads * warp_threads;
  }

  struct Place {           // of a thread
    int lane, tile;        // in its block
    int channel, rank;     // the first of a pass
    int count;             // ranks that there are; 0: no work
  };

  TDN_DEVICE void operator()(int64_t item, const Block &block) const
  {
    block.each([&](int thread) { run(item, block, thread); });
  }

  TDN_DEVICE void run(int64_t item, const Block &block, int thread) const
  {
    const int64_t i = a.first + item;
    const int num_pairs = Base::check(i);
    Totals<T, pass> totals;
    for (int c = 0; c < a.channels; c += channels())
      for (int r = 0; r < a.rank; r += width()) {
        const Place place = place_of(c, r, thread);
        Rows<T, V> sums{}, own_u{}, own_g{};
        if constexpr (adjoint) {
          own_u = a.u ? rows_of(a.u, i, place) : ones();
          own_g = rows_of(a.g, i, place);
        }
        PairQueue queue = Base::queue_of(block, num_pairs);
        while (const int count = Base::take(block, i, queue, thread)) {
          for (int first = 0; first < count; first += batch) {
            const int number = count - first < batch ? count - first : batch;
            block.sync();    // pairs are prepared; the last batch has been used
            couple(block, r, first, number, thread);
            radial_weights(block, first, number, place);
            block.sync();
            if (place.count == 0) continue;
            TDN_NO_UNROLL
            for (int e = 0; e < number; ++e) {
              if constexpr (adjoint)
                add_both(block, place, own_u, own_g, first + e, e, sums, totals);
              else
                add(block, place, first + e, e, sums);
            }
          }
        }
        if (a.out) {
          T *const to = a.out + (item * a.rank + place.rank) * a.channels + place.channel;
          TDN_UNROLL
          for (int n = 0; n < ranks; ++n)
            if (n < place.count) store(to + n * a.channels, sums.of[n]);
        }
        block.sync();    // nothing of this pass is read any more
      }
    if constexpr (adjoint) Base::add_totals(block, i, totals, working, thread);
  }

  TDN_DEVICE Place place_of(int c, int r, int thread) const
  {
    const int lane = thread % lanes, tile = thread / lanes;
    const int channel = c + lane * V, rank = r + tile * ranks;
    const bool works = tile < tiles && channel < a.channels && rank < a.rank;
    const int left = static_cast<int>(a.rank) - rank;
    return {lane, tile, channel, rank, !works ? 0 : left < ranks ? left : ranks};
  }

  TDN_DEVICE Rows<T, V> rows_of(const T *x, int64_t node, const Place &place) const
  {
    Rows<T, V> result{};
    const T *const from = x + (node * a.rank + place.rank) * a.channels + place.channel;
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      if (n < place.count) result.of[n] = load<T, V>(from + n * a.channels);
    return result;
  }

  TDN_DEVICE static Rows<T, V> ones()
  {
    Rows<T, V> result;
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      TDN_UNROLL
      for (int v = 0; v < V; ++v) result.of[n].value[v] = 1;
    return result;
  }

  // b[l, r] = sum_m harmonics[(l, m), r] Y_lm of the pairs from number `first` of the chunk on. A
  // thread keeps to one rank.
  TDN_DEVICE void couple(const Block &block, int r, int first, int number, int thread) const
  {
    const int rows = block.threads / width(), column = thread % width(), rank = r + column;
    if (thread >= rows * width()) return;
    for (int item = thread / width(); item < Base::kinds * number; item += rows) {
      int kind = 0, e = item;
      for (; e >= number; e -= number) ++kind;
      const T *const y =
          at<T>(block, Base::y) + kind * Base::components * chunk + first + e;
      T *const to = at<T>(block, b) + (kind * batch + e) * degrees() * width() + column;
      TDN_UNROLL
      for (int l = 0; l < degrees(); ++l) {
        T total = 0;
        if (!a.harmonics) {
          if (in_range(rank, l * l, (l + 1) * (l + 1))) total = y[rank * chunk];
        } else if (rank < a.rank) {
          TDN_UNROLL
          for (int k = l * l; k < (l + 1) * (l + 1); ++k)
            total += y[k * chunk] * a.harmonics[k * a.rank + rank];
        }
        to[l * width()] = total;
      }
    }
  }

  // Weights and slopes of both edges; those of the edge to the center with the sign (-1)^l of its
  // harmonics, whose direction is the opposite one. A thread keeps to its channels. Between atoms
  // of one species both edges have the same weights.
  TDN_DEVICE void radial_weights(const Block &block, int first, int number,
                                 const Place &place) const
  {
    const int plane = batch * degrees() * channels();
    if (place.tile >= tiles) return;
    for (int e = place.tile; e < number; e += tiles) {
      const int64_t out = at<int64_t>(block, Base::row[0])[first + e];
      const int64_t in = adjoint ? at<int64_t>(block, Base::row[1])[first + e] : -1;
      const T s = at<T>(block, Base::s)[first + e];
      T *const to = at<T>(block, w) + e * degrees() * channels() + place.lane * V;
      TDN_UNROLL
      for (int l = 0; l < degrees(); ++l) {
        Numbers value, slope;
        weight(out, l, s, place.channel, value, slope);
        store(to + l * channels(), value);
        if constexpr (adjoint) {
          store(to + plane + l * channels(), slope);
          if (in != out) weight(in, l, s, place.channel, value, slope);
          const T sign = l % 2 == 1 ? T(-1) : T(1);
          TDN_UNROLL
          for (int v = 0; v < V; ++v) {
            value.value[v] *= sign;
            slope.value[v] *= sign;
          }
          store(to + 2 * plane + l * channels(), value);
          store(to + 3 * plane + l * channels(), slope);
        }
      }
    }
  }

  // A degree's weight and slope in the row of an edge; zero where there is none.
  TDN_DEVICE void weight(int64_t row, int l, T s, int channel, Numbers &value,
                         Numbers &slope) const
  {
    value = slope = {};
    if (row < 0 || channel >= a.channels) return;
    Base::template polynomials<V>(row, l, s, channel, value, slope);
  }

  TDN_DEVICE const T *couplings(const Block &block, int e, int l, const Place &place) const
  {
    return at<T>(block, b) + (e * degrees() + l) * width() + place.tile * ranks;
  }

  TDN_DEVICE const T *weights_of(const Block &block, int e, int l, const Place &place) const
  {
    return at<T>(block, w) + (e * degrees() + l) * channels() + place.lane * V;
  }

  // Pair `e` of the batch, number `k` of the chunk.
  TDN_DEVICE void add(const Block &block, const Place &place, int k, int e,
                      Rows<T, V> &sums) const
  {
    const int64_t node = at<int>(block, Base::node)[k];
    const Rows<T, V> row = a.u ? rows_of(a.u, node, place) : ones();
    Rows<T, V> coupling{};
    TDN_UNROLL
    for (int l = 0; l < degrees(); ++l) {
      const Numbers weight = load<T, V>(weights_of(block, e, l, place));
      const T *const from = couplings(block, e, l, place);
      TDN_UNROLL
      for (int n = 0; n < ranks; n += 2) {
        const Pack<T, 2> two = load<T, 2>(from + n);
        TDN_UNROLL
        for (int m = 0; m < 2; ++m)
          TDN_UNROLL
          for (int v = 0; v < V; ++v)
            coupling.of[n + m].value[v] += two.value[m] * weight.value[v];
      }
    }
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      TDN_UNROLL
      for (int v = 0; v < V; ++v)
        sums.of[n].value[v] += coupling.of[n].value[v] * row.of[n].value[v];
  }

  TDN_DEVICE void add_both(const Block &block, const Place &place, const Rows<T, V> &own_u,
                           const Rows<T, V> &own_g, int k, int e, Rows<T, V> &sums,
                           Totals<T, pass> &totals) const
  {
    const int64_t node = at<int>(block, Base::node)[k];
    Rows<T, V> out{}, in{}, row{};
    if (at<int64_t>(block, Base::row[0])[k] >= 0)
      out = a.u ? rows_of(a.u, node, place) : ones();
    if (at<int64_t>(block, Base::row[1])[k] >= 0) row = rows_of(a.g, node, place);
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        out.of[n].value[v] *= own_g.of[n].value[v];
        in.of[n].value[v] = row.of[n].value[v] * own_u.of[n].value[v];
      }
    // derivatives along s and both angles: of both edges, or of the edges from and to the center
    constexpr bool apart = pass == Pass::centroid;
    T along[3] = {}, along_in[3] = {};
    const int kind = batch * degrees() * width(), plane = batch * degrees() * channels();
    TDN_NO_UNROLL    // spares registers
    for (int l = 0; l < degrees(); ++l) {
      const T *const weight = weights_of(block, e, l, place);
      const T *const from = couplings(block, e, l, place);
      TDN_UNROLL
      for (int j = 0; j < 3; ++j) {
        if (j > 0 && l == 0) continue;    // the scalar harmonic has no slope along angles
        const Numbers w_in = load<T, V>(weight + 2 * plane);
        Numbers sum_out{}, sum_in{};
        TDN_UNROLL
        for (int n = 0; n < ranks; n += 2) {
          const Pack<T, 2> two = load<T, 2>(from + j * kind + n);
          TDN_UNROLL
          for (int m = 0; m < 2; ++m)
            TDN_UNROLL
            for (int v = 0; v < V; ++v) {
              sum_out.value[v] += two.value[m] * out.of[n + m].value[v];
              sum_in.value[v] += two.value[m] * in.of[n + m].value[v];
              // not couplings first, which take registers that there are not
              if (j == 0)
                sums.of[n + m].value[v] +=
                    (two.value[m] * w_in.value[v]) * row.of[n + m].value[v];
            }
        }
        const Numbers by_out = load<T, V>(weight + (j == 0 ? plane : 0));
        const Numbers by_in = j == 0 ? load<T, V>(weight + 3 * plane) : w_in;
        T *const to = apart ? along_in : along;
        TDN_UNROLL
        for (int v = 0; v < V; ++v) {
          along[j] += sum_out.value[v] * by_out.value[v];
          to[j] += sum_in.value[v] * by_in.value[v];
        }
      }
    }
    Base::add_pair(block, k, along, along_in, totals);
  }
};

}    // namespace

// Registers of a thread: at most 168 in the adjoint and 96 forward, so that four blocks of the
// default size are at work beside each other, or six.
template <typename T, int V, int L, Pass pass> struct BlockLimits<Pairs<T, V, L, pass>> {
  static constexpr int threads = max_threads;
  static constexpr int blocks = sizeof(T) == 8 || pass == Pass::centroid ? 1
      : pass == Pass::forward && L < 4                                   ? 3
                                                                         : 2;
};

namespace {

template <typename T, int V, int L, Pass pass>
int launch(const PairWalk<T> &a, const Queue &queue)
{
  const Pairs<T, V, L, pass> kernel(a);
  return launch_blocks(kernel, a.count, kernel.threads(), kernel.bytes, queue);
}

// Messages are compiled for the degrees of l_max 1 to 3 in float32 with an even number of channels,
// all else for any: in the adjoint, loops over known degrees take more registers than there are.
template <typename T, Pass pass> int launch_pass(const PairWalk<T> &a, const Queue &queue)
{
  if (a.channels == 0 || a.rank == 0) return 0;
  if constexpr (sizeof(T) == 4) {
    if (pass != Pass::centroid && density_fits(a))
      return launch_density(a, pass == Pass::adjoint, queue);
    if (packs<T, 2>(a.channels, a.u, a.g, a.out, a.pairs.table.values)) {
      if constexpr (pass == Pass::forward) {
        if (a.l_max == 1) return launch<T, 2, 2, pass>(a, queue);
        if (a.l_max == 2) return launch<T, 2, 3, pass>(a, queue);
        if (a.l_max == 3) return launch<T, 2, 4, pass>(a, queue);
      }
      return launch<T, 2, 0, pass>(a, queue);
    }
  }
  return launch<T, 1, 0, pass>(a, queue);
}

}    // namespace

template <typename T> int launch_pairs(const PairWalk<T> &a, const Queue &queue)
{
  return launch_pass<T, Pass::forward>(a, queue);
}

template <typename T> int launch_pairs_adjoint(const PairWalk<T> &a, const Queue &queue)
{
  return a.sums.centroid ? launch_pass<T, Pass::centroid>(a, queue)
                         : launch_pass<T, Pass::adjoint>(a, queue);
}

template int launch_pairs(const PairWalk<float> &, const Queue &);
template int launch_pairs(const PairWalk<double> &, const Queue &);
template int launch_pairs_adjoint(const PairWalk<float> &, const Queue &);
template int launch_pairs_adjoint(const PairWalk<double> &, const Queue &);

}    // namespace tdn::cuda
