// SPDX-License-Identifier: MIT

/* Files of TorchScript (*.tdn.pth). */

#include "backend.h"
#include "replay.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <stdexcept>

namespace tdn {

namespace {

/** The backward pass runs on the calling thread, since only that one may use MPI. The profiling
    executor is off: it would compile the model again for new numbers of edges in the first steps of
    every run. */
class EvaluationScope {
 public:
  EvaluationScope() : optimize(false), autograd(c10::AutogradState::get_tls_state())
  {
    auto &state = c10::AutogradState::get_tls_state();
    state.set_grad_mode(true);
    state.set_multithreading_enabled(false);
  }
  ~EvaluationScope() { c10::AutogradState::set_tls_state(autograd); }
  EvaluationScope(const EvaluationScope &) = delete;
  EvaluationScope &operator=(const EvaluationScope &) = delete;

 private:
  torch::jit::GraphOptimizerEnabledGuard optimize;
  c10::AutogradState autograd;
};

/// Whether the operators of the function from positions have kernels for the device.
bool has_pair_kernels(const at::Device &device)
{
  const auto schema = c10::Dispatcher::singleton().findSchema({"tdn::pair_forward", ""});
  return schema && schema->hasKernelForDispatchKey(device.is_cpu() ? c10::DispatchKey::CPU
                                                                   : c10::DispatchKey::CUDA);
}

class TorchScriptBackend : public Backend {
 public:
  TorchScriptBackend(torch::jit::Module loaded, const Metadata &metadata,
                     const at::Device &device) :
      module(std::move(loaded)),
      has_positions(has_pair_kernels(device) && module.find_method("from_positions"))
  {
    module.eval();
    const auto options = torch::TensorOptions().device(device);
    workspace =
        torch::empty({0}, options.dtype(metadata.dtype == "float64" ? at::kDouble : at::kFloat));
  }

  BackendOutput run(const BackendInput &input, Exchange *exchange, bool members) override
  {
    const ExchangeScope exchange_scope(exchange);
    const EvaluationScope evaluation_scope;
    const auto output = module.get_method(members ? "forward_members" : "forward")(
        {input.species, input.edge_index, input.edge_vec, input.num_local});
    const auto &results = output.toTupleRef().elements();
    return {results.at(0).toTensor().detach(), results.at(1).toTensor().detach()};
  }

  bool takes_positions() const override { return has_positions; }

  void use_graphs(bool on) override
  {
    replay.reset();
    if (on) replay = std::make_unique<Replay>();
  }

  std::string graphs_failure() const override { return replay ? replay->failure() : std::string(); }

  PositionOutput run(const PositionInput &input, Exchange *exchange, bool members) override
  {
    const auto evaluate = [&] { return run_once(input, exchange, members); };
    // MPI takes no part in a recording; what is asked for now and then is not worth one
    if (!replay || exchange || members || input.per_atom) return evaluate();
    return replay->run(input, workspace, evaluate);
  }

  void release() override { workspace = torch::empty({0}, workspace.options()); }

 private:
  PositionOutput run_once(const PositionInput &input, Exchange *exchange, bool members)
  {
    const ExchangeScope exchange_scope(exchange);
    const EvaluationScope evaluation_scope;
    const auto output =
        module.get_method(members ? "members_from_positions" : "from_positions")(
            {input.positions, input.center, input.begin, input.other, input.node, input.species,
             input.per_atom, workspace});
    const auto &results = output.toTupleRef().elements();
    return {results.at(0).toTensor(), results.at(1).toTensor(), results.at(2).toTensor(),
            results.at(3).toTensor(), results.at(4).toTensor()};
  }

  torch::jit::Module module;
  bool has_positions;
  torch::Tensor workspace;    // of the function from positions, which enlarges it
  std::unique_ptr<Replay> replay;    // with graphs
};

}    // namespace

std::unique_ptr<Backend> load_torchscript(const std::string &path, const Metadata &metadata,
                                          const at::Device &device)
{
  torch::jit::Module module;
  try {
    module = torch::jit::load(path, device);
  } catch (const std::exception &error) {
    if (std::string(error.what()).find("Unknown builtin op: tdn::") == std::string::npos) throw;
    throw std::runtime_error("it needs operators that this libtdn_ops.so lacks; "
                             "run: tdn-ops build");
  }
  if (metadata.committee > 1 && !module.find_method("forward_members"))
    throw std::runtime_error("it is said to be a committee, but has no function forward_members; "
                             "export it again");
  return std::make_unique<TorchScriptBackend>(std::move(module), metadata, device);
}

}    // namespace tdn
