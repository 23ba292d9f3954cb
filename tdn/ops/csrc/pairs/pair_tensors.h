// Lists of pairs, layers and sums as tensors, and the structures that point to them.

#ifndef TDN_PAIR_TENSORS_H
#define TDN_PAIR_TENSORS_H

#include "node_tile.h"
#include "pair_list_tensors.h"
#include "common/parallel.h"

#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>

#include <memory>
#include <vector>

namespace tdn {

template <typename T> struct Kernels;
template <> struct Kernels<float> {
  static const PairKernels<float> &pairs() { return pair_table().float32; }
  static const PairDensityKernels<float> &density() { return pair_density_table().float32; }
  static const ConvolutionKernels<float> &convolution() { return convolution_table().float32; }
};
template <> struct Kernels<double> {
  static const PairKernels<double> &pairs() { return pair_table().float64; }
  static const PairDensityKernels<double> &density() { return pair_density_table().float64; }
  static const ConvolutionKernels<double> &convolution() { return convolution_table().float64; }
};

// Memory of one thread that stays between calls.
template <typename T> T *thread_scratch(int64_t count)
{
  constexpr size_t alignment = 64;
  thread_local std::vector<T> memory;
  const size_t needed = count + alignment / sizeof(T);
  if (memory.size() < needed) memory.resize(needed);
  void *start = memory.data();
  size_t space = memory.size() * sizeof(T);
  return static_cast<T *>(std::align(alignment, 1, start, space));
}

struct Pairs : PairListTensors {
  using PairListTensors::PairListTensors;

  // Call function(begin, end) in parallel for centers with about equal numbers of pairs.
  template <typename F> void each_center(int64_t work_per_pair, const F &function) const
  {
    if (num_centers() > 0)
      parallel_nodes(ptr.const_data_ptr<int64_t>(), num_centers(), work_per_pair, function);
  }
};

// The sums of this thread.
inline PairSums sums_of_thread(at::TensorList sums)
{
  const int64_t thread = at::get_thread_num();
  TORCH_CHECK(thread < sums[0].size(0), "sums of pairs were made for ", sums[0].size(0),
              " threads, found ", thread + 1);
  double *part[4];
  for (int k = 0; k < 4; ++k)
    part[k] = sums[k].mutable_data_ptr<double>() + thread * (sums[k].numel() / sums[k].size(0));
  const bool per_atom = sums[2].numel() > 0;
  return {part[0], part[1], per_atom ? part[2] : nullptr, per_atom ? part[3] : nullptr};
}

// The edges of a layer.
template <typename T> struct EdgeLayer {
  bool first;    // its neighbors are known by their species
  Tensor table, input1, harmonics, output;
  int64_t l_max, components, channels, blocks, rank;
  double r_max, stretch;

  EdgeLayer(at::TensorList edge, int64_t channels, at::ArrayRef<double> numbers) :
      first(edge.size() == 1), table(edge[0]), channels(channels),
      blocks((channels + width() - 1) / width()), r_max(numbers[0]), stretch(numbers[1])
  {
    if (first) {
      l_max = table.size(4) - 1;
      components = rank = (l_max + 1) * (l_max + 1);
      return;
    }
    components = edge[2].size(0);
    l_max = 0;
    while ((l_max + 1) * (l_max + 1) < components) ++l_max;
    rank = Kernels<T>::convolution().padded_rank(edge[1].size(1));
    const auto pad = [&](const Tensor &matrix, int64_t columns) {
      return at::constant_pad_nd(matrix, {0, columns - matrix.size(1)}).contiguous();
    };
    input1 = pad(edge[1], rank);
    harmonics = pad(edge[2], Kernels<T>::convolution().padded_row(edge[1].size(1)));
    output = pad(edge[3], rank);
  }

  static int64_t width() { return Kernels<T>::convolution().width; }
  int64_t row_size() const { return blocks * rank * width(); }
  int64_t work_per_pair() const { return 8 * row_size(); }
  int64_t scratch_size() const
  {
    return Kernels<T>::pairs().scratch_size(l_max, table.size(4), rank, blocks);
  }

  PairArguments<T> arguments(const Pairs &pairs) const
  {
    PairArguments<T> a{};
    a.l_max = l_max;
    a.rank = rank;
    a.channels = channels;
    a.blocks = blocks;
    a.pairs = pairs.list<T>({table.const_data_ptr<T>(), table.size(0), table.size(2), table.size(4),
                             table.size(5) - 1, r_max, stretch});
    a.harmonics = first ? nullptr : harmonics.const_data_ptr<T>();
    return a;
  }

  // messages [n, D, C] of the centers [begin, end)
  void messages(const Pairs &pairs, const Tensor &u, int64_t begin, int64_t end, T *out) const
  {
    PairArguments<T> a = arguments(pairs);
    a.out = out;
    T *const scratch = thread_scratch<T>(scratch_size());
    if (first) {
      Kernels<T>::density().density(a, scratch, begin, end);
      return;
    }
    a.u = u.const_data_ptr<T>();
    a.output = output.const_data_ptr<T>();
    a.rows_out = output.size(0);
    Kernels<T>::pairs().convolution(a, scratch, begin, end);
  }

  // gradient of the features [n, D, C] of the centers [begin, end), and forces
  void adjoint(const Pairs &pairs, const Tensor &u, const Tensor &ranked, const PairSums &sums,
               int64_t begin, int64_t end, T *out) const
  {
    PairArguments<T> a = arguments(pairs);
    a.out = out;
    a.u = u.const_data_ptr<T>();
    a.g = ranked.const_data_ptr<T>();
    a.output = input1.const_data_ptr<T>();
    a.rows_out = input1.size(0);
    a.sums = sums;
    Kernels<T>::pairs().convolution_adjoint(a, thread_scratch<T>(scratch_size()), begin, end);
  }

  // x [count, D, C] to rank space
  void project(const T *x, const Tensor &matrix, int64_t count, T *out) const
  {
    const ProjectArguments<T> a{matrix.size(0), channels, blocks, rank,
                                x,              matrix.const_data_ptr<T>(), out};
    Kernels<T>::convolution().project(a, 0, count);
  }

  // [count, D, C] -> [count, blocks, D, width]
  void to_blocks(const T *x, int64_t count, T *out) const
  {
    const int64_t V = width();
    for (int64_t n = 0; n < count; ++n)
      for (int64_t block = 0; block < blocks; ++block)
        for (int64_t k = 0; k < components; ++k)
          for (int64_t v = 0; v < V; ++v, ++out) {
            const int64_t c = block * V + v;
            *out = c < channels ? x[(n * components + k) * channels + c] : T(0);
          }
  }
};

}    // namespace tdn

#endif
