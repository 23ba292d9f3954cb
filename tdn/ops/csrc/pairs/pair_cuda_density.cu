#include "pair_cuda_block.h"

// A first layer, whose messages are sums of Y_lm w_l,c: a thread has V channels of all components
// and takes every few pairs of a center. Radial weights are used where they are computed.
//
// Flops and bytes of a pair with C channels, L degrees, D = L^2 components, polynomials of order p:
// forward 2 C (L p + D) flops and (p + 1) L C numbers of the table; adjoint, both edges,
// 2 C (4 L p + 6 D + 6 L) flops, twice the table and D C numbers of g. In float32 at the default
// size (C 64, L 3, p 7) that is 3.8 and 20 kflop for 6.1 and 2.3 + 12.3 kB: both are bound by the
// table, from the caches.

namespace tdn::cuda {
namespace {

constexpr int density_threads = 128;

template <typename T, int V, int L, Pass pass> struct Density : PairBlock<T, pass> {
  using Base = PairBlock<T, pass>;
  using Numbers = Pack<T, V>;
  using Base::a;
  using Base::adjoint;
  using Base::chunk;
  static constexpr int components = L * L;

  // Passes over `lanes` packs of channels; slices: pairs that are taken at the same time.
  int lanes, slices, sums, bytes;    // sums: [slices][D][channels]

  explicit Density(const PairWalk<T> &walk) :
      Base(walk), lanes(static_cast<int>(walk.channels / V < 32 ? walk.channels / V : 32)),
      slices(density_threads / lanes)
  {
    if (slices > chunk) slices = chunk;
    SharedParts shared;
    Base::place(shared);
    SharedParts totals = shared;    // in the place of the sums, which the adjoint has none of
    sums = shared.take<T>(adjoint ? 0 : slices * components * channels());
    Base::place_totals(totals, lanes * slices);
    bytes = shared.bytes > totals.bytes ? shared.bytes : totals.bytes;
  }

  TDN_DEVICE int channels() const { return lanes * V; }
  int threads() const { return (lanes * slices + warp_threads - 1) / warp_threads * warp_threads; }

  TDN_DEVICE void operator()(int64_t item, const Block &block) const
  {
    block.each([&](int thread) { run(item, block, thread); });
  }

  TDN_DEVICE void run(int64_t item, const Block &block, int thread) const
  {
    const int64_t i = a.first + item;
    const int num_pairs = Base::check(i), lane = thread % lanes, slice = thread / lanes;
    Totals<T, pass> totals;
    for (int c = 0; c < a.channels; c += channels()) {
      const int channel = c + lane * V;
      const bool works = slice < slices && channel < a.channels;
      Numbers own[components] = {};    // forward: sums; adjoint: gradient of the messages
      if constexpr (adjoint)
        if (works) read(i, channel, own);
      PairQueue queue = Base::queue_of(block, num_pairs);
      while (const int count = Base::take(block, i, queue, thread)) {
        block.sync();    // pairs are prepared
        if (!works) continue;
        TDN_NO_UNROLL
        for (int e = slice; e < count; e += slices) {
          if constexpr (adjoint)
            add_both(block, e, channel, own, totals);
          else
            add(block, e, channel, own);
        }
      }
      if constexpr (!adjoint) add_slices(block, item, c, works, lane, slice, own);
      block.sync();    // nothing of this pass is read any more
    }
    if constexpr (adjoint) Base::add_totals(block, i, totals, lanes * slices, thread);
  }

  TDN_DEVICE void read(int64_t node, int channel, Numbers (&g)[components]) const
  {
    TDN_UNROLL
    for (int k = 0; k < components; ++k)
      g[k] = load<T, V>(a.g + (node * components + k) * a.channels + channel);
  }

  TDN_DEVICE void add(const Block &block, int e, int channel, Numbers (&sum)[components]) const
  {
    const int64_t row = at<int64_t>(block, Base::row[0])[e];
    const T s = at<T>(block, Base::s)[e];
    const T *const y = at<T>(block, Base::y) + e;
    TDN_UNROLL
    for (int l = 0; l < L; ++l) {
      Numbers value, slope;
      Base::template polynomials<V>(row, l, s, channel, value, slope);
      TDN_UNROLL
      for (int k = l * l; k < (l + 1) * (l + 1); ++k) {
        const T factor = y[k * chunk];
        TDN_UNROLL
        for (int v = 0; v < V; ++v) sum[k].value[v] += factor * value.value[v];
      }
    }
  }

  // Over the slices, in their order.
  TDN_DEVICE void add_slices(const Block &block, int64_t item, int c, bool works, int lane,
                             int slice, const Numbers (&sum)[components]) const
  {
    T *const shared = at<T>(block, sums);
    if (works) {
      TDN_UNROLL
      for (int k = 0; k < components; ++k)
        store(shared + (slice * components + k) * channels() + lane * V, sum[k]);
    }
    block.sync();
    for (int k = slice; k < components && slice < slices; k += slices) {
      const int channel = c + lane * V;
      if (channel >= a.channels) break;
      Numbers total{};
      for (int other = 0; other < slices; ++other) {
        const Numbers one =
            load<T, V>(shared + (other * components + k) * channels() + lane * V);
        TDN_UNROLL
        for (int v = 0; v < V; ++v) total.value[v] += one.value[v];
      }
      store(a.out + (item * components + k) * a.channels + channel, total);
    }
  }

  TDN_DEVICE void add_both(const Block &block, int e, int channel,
                           const Numbers (&own)[components], Totals<T, pass> &totals) const
  {
    const int64_t row_out = at<int64_t>(block, Base::row[0])[e];
    const int64_t row_in = at<int64_t>(block, Base::row[1])[e];
    const T s = at<T>(block, Base::s)[e];
    const T *const y = at<T>(block, Base::y) + e;
    const int kind = components * chunk;
    Numbers other[components] = {};
    if (row_in >= 0) read(at<int>(block, Base::node)[e], channel, other);
    T along[3] = {}, unused[3] = {};
    TDN_UNROLL
    for (int l = 0; l < L; ++l) {
      Numbers w_out{}, slope_out{}, w_in{}, slope_in{}, sum_out[3] = {}, sum_in[3] = {};
      if (row_out >= 0)
        Base::template polynomials<V>(row_out, l, s, channel, w_out, slope_out);
      if (row_in == row_out) {    // atoms of one species
        w_in = w_out;
        slope_in = slope_out;
      } else if (row_in >= 0) {
        Base::template polynomials<V>(row_in, l, s, channel, w_in, slope_in);
      }
      TDN_UNROLL
      for (int j = 0; j < 3; ++j) {
        if (j > 0 && l == 0) continue;    // the scalar harmonic has no slope along angles
        TDN_UNROLL
        for (int k = l * l; k < (l + 1) * (l + 1); ++k) {
          const T factor = y[j * kind + k * chunk];
          TDN_UNROLL
          for (int v = 0; v < V; ++v) {
            sum_out[j].value[v] += factor * own[k].value[v];
            sum_in[j].value[v] += factor * other[k].value[v];
          }
        }
      }
      const T sign = l % 2 == 1 ? T(-1) : T(1);    // of harmonics in the opposite direction
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        along[0] += sum_out[0].value[v] * slope_out.value[v] +
            sign * (sum_in[0].value[v] * slope_in.value[v]);
        TDN_UNROLL
        for (int j = 1; j < 3; ++j)
          along[j] += sum_out[j].value[v] * w_out.value[v] +
              sign * (sum_in[j].value[v] * w_in.value[v]);
      }
    }
    Base::add_pair(block, e, along, unused, totals);
  }
};

}    // namespace

template <typename T, int V, int L, Pass pass> struct BlockLimits<Density<T, V, L, pass>> {
  static constexpr int threads = density_threads;
  static constexpr int blocks = (pass == Pass::forward ? 6 : 4) - (L < 4 ? 0 : 1);
};

namespace {

template <int L> int launch_degrees(const PairWalk<float> &a, bool adjoint, const Queue &queue)
{
  if (adjoint) {
    const Density<float, 2, L, Pass::adjoint> kernel(a);
    return launch_blocks(kernel, a.count, kernel.threads(), kernel.bytes, queue);
  }
  const Density<float, 2, L, Pass::forward> kernel(a);
  return launch_blocks(kernel, a.count, kernel.threads(), kernel.bytes, queue);
}

}    // namespace

bool density_fits(const PairWalk<float> &a)
{
  return !a.harmonics && !a.u && a.l_max >= 1 && a.l_max <= 3 && !a.sums.centroid &&
      packs<float, 2>(a.channels, a.g, a.out, a.pairs.table.values);
}

int launch_density(const PairWalk<float> &a, bool adjoint, const Queue &queue)
{
  if (a.l_max == 1) return launch_degrees<2>(a, adjoint, queue);
  if (a.l_max == 2) return launch_degrees<3>(a, adjoint, queue);
  return launch_degrees<4>(a, adjoint, queue);
}

}    // namespace tdn::cuda
