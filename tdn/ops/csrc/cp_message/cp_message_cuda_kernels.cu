#include "cp_message_cuda_kernels.h"

#include "common/launch.h"

// Bytes and flops. With R ranks, C channels and L degrees an edge costs
//   gather:  2 R C (L + 1) flops;  reads R C + L R + L C numbers and one or two indices
//   edges:   R C (4 L + 1) flops;  reads the same (rows of g are shared by the edges of a center),
//            writes L R + L C
// In float32 at the default size (R = 17, C = 64, L = 3) that is 8.7 kflop and 5.3 kB (gather),
// 14 kflop and 6.3 kB (edges): about 2 flops per byte, while a GPU of 2020 or later does 10 and
// more per byte of its memory and about 4 per byte of its L2 cache. Both kernels are thus bound by
// how fast rows of x (of u) come, from L2 as long as the features fit there (4.4 kB per atom and
// layer: about 10,000 atoms in 40 MB). Hence
//   - rows are read coalesced, 16 bytes per thread, several rows in flight;
//   - sums stay in registers and are written once, and nothing of size E x R x C exists;
//   - a thread holds several channels, so that a number of b, which is the same for all channels,
//     is read once for all of them: loads from L1, not flops, would be the next bound.

namespace tdn::cuda {
namespace {

constexpr const char *bad_edges =
    "cp_message: edges have indices out of range; take them from sort_edges";

TDN_DEVICE bool in_range(int64_t index, int64_t size) { return index >= 0 && index < size; }

// A thread sums V channels of N ranks over the edges of one node. L: degrees if known when
// compiled, else 0.
template <typename T, int V, int N, int L> struct Gather {
  GatherArguments<T> a;
  Sizes sizes;
  int64_t channel_groups, rank_groups;
  int rank, channels;    // as in `a`; offsets within a row need no 64 bits

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int c = static_cast<int>(thread % channel_groups) * V;
    const int wanted = static_cast<int>(thread / channel_groups % rank_groups) * N;
    const int r = wanted + N <= rank ? wanted : rank - N;    // the last group overlaps
    const int64_t node = thread / channel_groups / rank_groups;
    const int64_t first = a.ptr[node], last = a.ptr[node + 1];
    TDN_DEVICE_CHECK(first >= 0 && first <= last && last <= sizes.edges, bad_edges);

    Pack<T, V> sum[N] = {};
    TDN_UNROLL_TWICE
    for (int64_t k = first; k < last; ++k) {
      const int64_t e = a.order ? a.order[k] : k;
      TDN_DEVICE_CHECK(in_range(e, sizes.edges), bad_edges);
      const int64_t source = a.source[e];
      TDN_DEVICE_CHECK(in_range(source, sizes.sources), bad_edges);
      add_edge(a.x + source * a.rank * a.channels + (r * channels + c),
               a.b + e * a.degrees * a.rank + r, a.w + e * a.degrees * a.channels + c, sum);
    }
    T *out = a.out + node * a.rank * a.channels + (r * channels + c);
    TDN_UNROLL
    for (int n = 0; n < N; ++n)
      if (r + n >= wanted) store(out + n * channels, sum[n]);
  }

  TDN_DEVICE void add_edge(const T *x, const T *b, const T *w, Pack<T, V> *sum) const
  {
    Pack<T, V> row[N], coupling[N];
    TDN_UNROLL
    for (int n = 0; n < N; ++n) row[n] = load<T, V>(x + n * channels);
    if constexpr (L > 0) {
      TDN_UNROLL
      for (int l = 0; l < L; ++l) add_degree(b + l * rank, w + l * channels, l == 0, coupling);
    } else {
      TDN_UNROLL
      for (int n = 0; n < N; ++n) coupling[n] = {};
      TDN_UNROLL_TWICE
      for (int64_t l = 0; l < a.degrees; ++l)
        add_degree(b + l * rank, w + l * channels, false, coupling);
    }
    TDN_UNROLL
    for (int n = 0; n < N; ++n)
      TDN_UNROLL
      for (int v = 0; v < V; ++v) sum[n].value[v] += coupling[n].value[v] * row[n].value[v];
  }

  TDN_DEVICE static void add_degree(const T *b, const T *w, bool begin, Pack<T, V> *coupling)
  {
    const Pack<T, V> weight = load<T, V>(w);
    TDN_UNROLL
    for (int n = 0; n < N; ++n)
      TDN_UNROLL
      for (int v = 0; v < V; ++v) {
        const T product = b[n] * weight.value[v];
        coupling[n].value[v] = begin ? product : coupling[n].value[v] + product;
      }
  }
};

// A group of lanes takes one edge. A lane holds 2 V channels: it sums grad_w over the ranks by
// itself. grad_b needs sums over the channels, that is over the lanes: few lanes with many channels
// each keep that cheap, since a sum over n lanes costs log2(n) shuffles in each of them.
// L: degrees per sweep; more degrees read g and u again.
template <typename T, int V, int L> struct EdgeGradients {
  static constexpr int packs = 2, ranks = 2;    // per lane; per step, to have more rows in flight
  static constexpr int channels_per_sweep = Lanes::count * packs * V;

  EdgeArguments<T> a;
  Sizes sizes;
  int rank, channels;    // as in `a`; offsets within a row need no 64 bits

  struct Rows {    // of w or grad_w: this lane's channels
    Pack<T, V> of[L][packs];
  };

  struct Edge {    // from the degree on at which a sweep begins
    const T *g, *u, *b, *w;
    T *grad_b, *grad_w;
    int64_t degrees;
  };

  TDN_DEVICE void operator()(int64_t e, const Lanes &lanes) const
  {
    const int64_t i = a.center[e], j = a.neighbor[e], row = a.rank * a.channels;
    TDN_DEVICE_CHECK(in_range(i, sizes.nodes) && in_range(j, sizes.sources), bad_edges);
    for (int64_t l = 0; l < a.degrees; l += L) {
      const int64_t at_b = (e * a.degrees + l) * a.rank, at_w = (e * a.degrees + l) * a.channels;
      const Edge edge{a.g + i * row,     a.u + j * row,     a.b + at_b,     a.w + at_w,
                      a.grad_b + at_b, a.grad_w + at_w, a.degrees - l};
      int c = 0;
      do {    // once even without channels: grad_b is zero then
        sweep(edge, c, lanes);
        c += channels_per_sweep;
      } while (c < channels);
    }
  }

  // First channel of a lane's k-th pack.
  TDN_DEVICE static int channel(int c, int lane, int k)
  {
    return c + (k * Lanes::count + lane) * V;
  }

  TDN_DEVICE void sweep(const Edge &edge, int c, const Lanes &lanes) const
  {
    PerLane<Rows> w, grad_w;
    lanes.each([&](int lane) {
      TDN_UNROLL
      for (int l = 0; l < L; ++l)
        TDN_UNROLL
        for (int k = 0; k < packs; ++k) {
          const int at = channel(c, lane, k);
          grad_w[lane].of[l][k] = w[lane].of[l][k] = {};
          if (l < edge.degrees && at < channels)
            w[lane].of[l][k] = load<T, V>(edge.w + l * channels + at);
        }
    });
    // As many ranks at a time as there are lanes, so that each lane writes one of them.
    for (int r = 0; r < rank; r += Lanes::count) {
      PerLane<T> grad_b[L] = {};
      for (int q = 0; q < Lanes::count && r + q < rank; q += ranks) {
        PerLane<T> sum[ranks][L];
        lanes.each([&](int lane) {
          add_ranks(edge, r + q, c, lane, w[lane], grad_w[lane], sum);
        });
        if (!a.grad_b) continue;
        TDN_UNROLL
        for (int n = 0; n < ranks; ++n)
          TDN_UNROLL
          for (int l = 0; l < L; ++l) {
            lanes.sum(sum[n][l]);
            lanes.each([&](int lane) {
              if (lane == q + n) grad_b[l][lane] = sum[n][l][lane];
            });
          }
      }
      if (!a.grad_b || !lanes.active) continue;
      lanes.each([&](int lane) {
        TDN_UNROLL
        for (int l = 0; l < L; ++l)
          if (l < edge.degrees && r + lane < rank) {
            T *target = edge.grad_b + l * rank + r + lane;
            *target = c > 0 ? *target + grad_b[l][lane] : grad_b[l][lane];
          }
      });
    }
    if (!a.grad_w || !lanes.active) return;
    lanes.each([&](int lane) {
      TDN_UNROLL
      for (int l = 0; l < L; ++l)
        TDN_UNROLL
        for (int k = 0; k < packs; ++k)
          if (l < edge.degrees && channel(c, lane, k) < channels)
            store(edge.grad_w + l * channels + channel(c, lane, k), grad_w[lane].of[l][k]);
    });
  }

  // Ranks r to r + ranks, one lane's channels: adds to grad_w, sets the lane's part of grad_b.
  TDN_DEVICE void add_ranks(const Edge &edge, int r, int c, int lane, const Rows &w, Rows &grad_w,
                            PerLane<T> (&sum)[ranks][L]) const
  {
    Pack<T, V> g[ranks][packs], u[ranks][packs];
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      TDN_UNROLL
      for (int k = 0; k < packs; ++k) {
        const int at = (r + n) * channels + channel(c, lane, k);
        g[n][k] = u[n][k] = {};
        if (r + n < rank && channel(c, lane, k) < channels) {
          g[n][k] = load<T, V>(edge.g + at);
          u[n][k] = load<T, V>(edge.u + at);
        }
      }
    TDN_UNROLL
    for (int n = 0; n < ranks; ++n)
      TDN_UNROLL
      for (int l = 0; l < L; ++l) {
        const T factor = l < edge.degrees && r + n < rank ? edge.b[l * rank + r + n] : T(0);
        T total = 0;
        TDN_UNROLL
        for (int k = 0; k < packs; ++k)
          TDN_UNROLL
          for (int v = 0; v < V; ++v) {
            const T product = g[n][k].value[v] * u[n][k].value[v];
            total += w.of[l][k].value[v] * product;
            grad_w.of[l][k].value[v] += factor * product;
          }
        sum[n][l][lane] = total;
      }
  }
};

template <typename T, int V, int N, int L>
int gather(const GatherArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  const int64_t channel_groups = a.channels / V, rank_groups = (a.rank + N - 1) / N;
  const Gather<T, V, N, L> kernel{a,           sizes,
                                  channel_groups, rank_groups,
                                  static_cast<int>(a.rank), static_cast<int>(a.channels)};
  return launch_threads(kernel, sizes.nodes * rank_groups * channel_groups, queue);
}

// Compiled for the numbers of degrees of l_max 0 to 3 and, twice that, of second derivatives.
template <typename T, int V>
int gather_for_degrees(const GatherArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  constexpr int ranks = V > 1 ? 4 : 8;
  if (a.rank < ranks) return gather<T, V, 1, 0>(a, sizes, queue);
  switch (a.degrees) {
    case 1: return gather<T, V, ranks, 1>(a, sizes, queue);
    case 2: return gather<T, V, ranks, 2>(a, sizes, queue);
    case 3: return gather<T, V, ranks, 3>(a, sizes, queue);
    case 4: return gather<T, V, ranks, 4>(a, sizes, queue);
    case 6: return gather<T, V, ranks, 6>(a, sizes, queue);
    default: return gather<T, V, ranks, 0>(a, sizes, queue);
  }
}

template <typename T, int V, int L>
int edges(const EdgeArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  const EdgeGradients<T, V, L> kernel{a, sizes, static_cast<int>(a.rank),
                                      static_cast<int>(a.channels)};
  return launch_groups(kernel, sizes.edges, queue);
}

constexpr int64_t max_degrees = 4;    // per sweep

template <typename T, int V>
int edges_for_degrees(const EdgeArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  const int64_t sweeps = (a.degrees + max_degrees - 1) / max_degrees;
  switch (sweeps > 0 ? (a.degrees + sweeps - 1) / sweeps : 0) {
    case 0: return 0;
    case 1: return edges<T, V, 1>(a, sizes, queue);
    case 2: return edges<T, V, 2>(a, sizes, queue);
    case 3: return edges<T, V, 3>(a, sizes, queue);
    default: return edges<T, V, 4>(a, sizes, queue);
  }
}

}    // namespace

template <typename T>
int launch_gather(const GatherArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  if (packs<T>(a.channels, a.x, a.w, a.out))
    return gather_for_degrees<T, widest<T>>(a, sizes, queue);
  return gather_for_degrees<T, 1>(a, sizes, queue);
}

template <typename T>
int launch_edges(const EdgeArguments<T> &a, const Sizes &sizes, const Queue &queue)
{
  if (packs<T>(a.channels, a.g, a.u, a.w, a.grad_w))
    return edges_for_degrees<T, widest<T>>(a, sizes, queue);
  return edges_for_degrees<T, 1>(a, sizes, queue);
}

template int launch_gather(const GatherArguments<float> &, const Sizes &, const Queue &);
template int launch_gather(const GatherArguments<double> &, const Sizes &, const Queue &);
template int launch_edges(const EdgeArguments<float> &, const Sizes &, const Queue &);
template int launch_edges(const EdgeArguments<double> &, const Sizes &, const Queue &);

}    // namespace tdn::cuda
