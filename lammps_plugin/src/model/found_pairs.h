// SPDX-License-Identifier: MIT

/* Lists of pairs that are found where the model is, in memory of its device. */

#ifndef TDN_FOUND_PAIRS_H
#define TDN_FOUND_PAIRS_H

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

namespace tdn {

struct FoundPairs {
  at::Tensor begin, other;    // as in `Pairs`

  /** All pairs of the rows [0, num_centers) with any row within the distance. `reached` gets 1 for
      each row that is in a pair; it may be null. */
  static std::shared_ptr<const FoundPairs> find(const at::Tensor &positions, int64_t num_centers,
                                                double distance, std::vector<uint8_t> *reached)
  {
    using Tensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
    using Find = Tensors(const at::Tensor &, int64_t, double);
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("tdn::find_pairs", "").typed<Find>();
    const auto [begin, other, in_pairs] = op.call(positions, num_centers, distance);
    if (reached) {
      const at::Tensor values = in_pairs.cpu();
      const auto *const first = values.const_data_ptr<uint8_t>();
      reached->assign(first, first + values.numel());
    }
    return std::make_shared<const FoundPairs>(FoundPairs{begin, other});
  }

  /// Copies in memory of the host.
  void copy(std::vector<int64_t> &begins, std::vector<int32_t> &others) const
  {
    const at::Tensor first = begin.cpu(), second = other.cpu();
    begins.assign(first.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>() + first.numel());
    others.assign(second.const_data_ptr<int32_t>(),
                  second.const_data_ptr<int32_t>() + second.numel());
  }
};

}    // namespace tdn

#endif
