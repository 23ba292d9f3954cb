// Arrays of a list that keep their places, and evaluations that are repeated in them, on the host:
// the class that keeps the recordings of a GPU has a recorder of this program, which does the work
// again with the tensors of the time of recording, as a GPU would use their memory.

#include "model/device_arrays.h"
#include "model/replay.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <memory>
#include <stdexcept>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

int64_t num_records = 0, num_replays = 0;
bool refuses = false;

struct Again : tdn::Recording {
  std::function<void()> work;
  explicit Again(std::function<void()> work) : work(std::move(work)) {}
  void replay() override
  {
    ++num_replays;
    work();
  }
};

std::unique_ptr<tdn::Recording> record(const std::function<void()> &work)
{
  if (refuses) throw std::runtime_error("cannot be recorded");
  ++num_records;
  return std::make_unique<Again>(work);
}

struct State {
  tdn::DeviceArrays arrays;
  tdn::Replay replay{record};
  Tensor workspace = at::empty({0}, at::kDouble);
  tdn::PositionOutput output;
};
std::unique_ptr<State> state;

void start(bool cannot_record)
{
  state = std::make_unique<State>();
  num_records = num_replays = 0;
  refuses = cannot_record;
}

// Of each center the sum of positions over its pairs, times its species.
tdn::PositionOutput evaluate(const tdn::PositionInput &input, Tensor &workspace)
{
  if (workspace.numel() < input.center.numel()) workspace.resize_({2 * input.center.numel()});
  const auto *ptr = input.begin.const_data_ptr<int64_t>();
  const auto *other = input.other.const_data_ptr<int32_t>();
  const Tensor forces = at::zeros({input.center.numel(), 3}, at::kDouble);
  for (int64_t i = 0; i < input.center.numel(); ++i)
    for (int64_t k = ptr[i]; k < ptr[i + 1]; ++k)
      forces[i].add_(input.positions[other[k]] *
                     input.species[input.node.const_data_ptr<int32_t>()[other[k]]]);
  return {forces.select(1, 0), forces, forces, forces, forces};
}

// A step with a list that is there in full if `build` is another number than before.
std::tuple<Tensor, int64_t, int64_t> step(const Tensor &positions, const Tensor &center,
                                          const Tensor &ptr, const Tensor &other,
                                          const Tensor &node, const Tensor &species, int64_t build,
                                          bool found)
{
  const tdn::FoundPairs list{ptr, other};
  tdn::Pairs pairs{positions.const_data_ptr<double>(), positions.size(0),
                   center.const_data_ptr<int32_t>(),   ptr.const_data_ptr<int64_t>(),
                   other.const_data_ptr<int32_t>(),    node.const_data_ptr<int32_t>(),
                   species.const_data_ptr<int64_t>(),  center.numel(),
                   species.numel(),                    build};
  if (found) {
    pairs.begin = nullptr;
    pairs.other = nullptr;
    pairs.found = &list;
  }
  const tdn::PositionInput input = state->arrays.send(pairs, false, at::kCPU, true);
  TORCH_CHECK(input.node.numel() == input.positions.size(0), "a node for each row");
  Tensor &workspace = state->workspace;
  state->output = state->replay.run(input, workspace,
                                    [input, &workspace] { return evaluate(input, workspace); });
  return {state->output.forces.clone(), num_records, num_replays};
}

}    // namespace

TORCH_LIBRARY(tdn_replay, library)
{
  library.def("failure() -> str", [] { return state->replay.failure(); });
  library.def("start(bool cannot_record) -> ()", start);
  library.def("step(Tensor positions, Tensor center, Tensor ptr, Tensor other, Tensor node,"
              " Tensor species, int build, bool found) -> (Tensor, int, int)",
              step);
}
