// SPDX-License-Identifier: MIT

/* The function inside a compiled file, whichever part of PyTorch runs it. */

#ifndef TDN_BACKEND_H
#define TDN_BACKEND_H

#include "tdn_model.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <stdexcept>
#include <string>

namespace caffe2::serialize {
class PyTorchStreamReader;
}

namespace tdn {

/// Where the parts of an AOTInductor package are in its archive.
constexpr char machine_code_folder[] = "data/aotinductor/";

/// Arguments of the function, contiguous on the device of the backend.
struct BackendInput {
  at::Tensor species;       // int64 [num_all]
  at::Tensor edge_index;    // int64 [2, num_edges]
  at::Tensor edge_vec;      // float64 [num_edges, 3]
  int64_t num_local;
};

/// Results; each has a first dimension [n] where every member of a committee was asked for.
struct BackendOutput {
  at::Tensor atom_energy;           // [num_local]
  at::Tensor gradient_or_forces;    // [num_edges, 3] by edge_vec, or direct forces [num_local, 3]
};

/// Arguments of the function from positions, contiguous on the device; see `Pairs`.
struct PositionInput {
  at::Tensor positions, center, begin, other, node, species;
  bool per_atom;
};

/// Results; each has a first dimension [n] where every member of a committee was asked for.
struct PositionOutput {
  at::Tensor atom_energy, forces, virial, atom_virial, centroid;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// Evaluate; `exchange` may be null. `members` asks for every network of a committee.
  virtual BackendOutput run(const BackendInput &input, Exchange *exchange, bool members) = 0;

  /// Whether there is a function from positions, and its evaluation.
  virtual bool takes_positions() const { return false; }
  virtual PositionOutput run(const PositionInput &, Exchange *, bool /*members*/)
  {
    throw std::logic_error("this file has no function from positions");
  }

  /// Record evaluations from positions on a GPU, where that is possible, and repeat them.
  virtual void use_graphs(bool) {}

  /// Why that was not possible; empty where nothing came in the way.
  virtual std::string graphs_failure() const { return {}; }

  /// Give back the memory that evaluations from positions keep.
  virtual void release() {}
};

/// Sets the transport of the operator tdn::exchange while it lives.
class ExchangeScope {
 public:
  explicit ExchangeScope(Exchange *exchange) : previous(get_exchange()) { set_exchange(exchange); }
  ~ExchangeScope() { set_exchange(previous); }
  ExchangeScope(const ExchangeScope &) = delete;
  ExchangeScope &operator=(const ExchangeScope &) = delete;

 private:
  Exchange *previous;
};

/// A TorchScript archive (*.tdn.pth).
std::unique_ptr<Backend> load_torchscript(const std::string &path, const Metadata &metadata,
                                          const at::Device &device);

/// An AOTInductor package (*.tdn.pt2); throws std::runtime_error if it was not compiled for here.
std::unique_ptr<Backend> load_aotinductor(caffe2::serialize::PyTorchStreamReader &archive,
                                          const Metadata &metadata, const at::Device &device);

}    // namespace tdn

#endif
