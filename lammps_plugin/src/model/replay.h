// SPDX-License-Identifier: MIT

/* Evaluations on a GPU that are repeated as a whole while their inputs stay in the same memory. */

#ifndef TDN_REPLAY_H
#define TDN_REPLAY_H

#include "backend.h"

#include "recording/recording.h"    // of the operator library

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tdn {

class Replay {
 public:
  using Record = std::function<std::unique_ptr<Recording>(const std::function<void()> &)>;

  explicit Replay(Record record = tdn::record) : record(std::move(record)) {}

  /** The first evaluation with inputs in some memory is an usual one: it enlarges the workspace, and
      libraries prepare themselves. The second is recorded. What cannot be recorded goes on as usual
      for good; `failure` says why. Results are overwritten by the next call. */
  PositionOutput run(const PositionInput &input, const at::Tensor &workspace,
                     const std::function<PositionOutput()> &evaluate)
  {
    if (!reason.empty()) return evaluate();
    const std::vector<int64_t> now = places(input, workspace);
    if (recording && now == last) {
      recording->replay();
      return output;
    }
    recording.reset();
    output = {};
    if (now != last) {
      const PositionOutput found = evaluate();
      last = places(input, workspace);
      return found;
    }
    try {
      recording = record([&] { output = evaluate(); });
    } catch (const std::exception &error) {
      reason = *error.what() ? error.what() : "unknown";
      output = {};
      return evaluate();
    }
    recording->replay();
    return output;
  }

  /// What came in the way of a recording; empty for nothing.
  const std::string &failure() const { return reason; }

 private:
  Record record;
  std::string reason;    // why nothing is recorded any more; empty before that
  std::vector<int64_t> last;    // places of the last evaluation
  std::unique_ptr<Recording> recording;
  PositionOutput output;    // in memory of the recording

  /// Addresses and numbers of elements.
  static std::vector<int64_t> places(const PositionInput &input, const at::Tensor &workspace)
  {
    std::vector<int64_t> found;
    for (const at::Tensor *x : {&input.positions, &input.center, &input.begin, &input.other,
                                &input.node, &input.species, &workspace}) {
      found.push_back(reinterpret_cast<int64_t>(x->const_data_ptr()));
      found.push_back(x->numel());
    }
    return found;
  }
};

}    // namespace tdn

#endif
