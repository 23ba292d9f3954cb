// SPDX-License-Identifier: MIT

#include "tdn_model.h"

#include "backend.h"
#include "description.h"
#include "device_arrays.h"
#include "found_pairs.h"
#include "memory.h"
#include "model_archive.h"
#include "pairs_of_edges.h"
#include "printable.h"

#include <ATen/Parallel.h>
#include <c10/core/StreamGuard.h>
#include <torch/cuda.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>

namespace tdn {

namespace {

/// The informative line of an exception, without the traceback of PyTorch.
std::string one_line(const std::exception &error)
{
  const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  const std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  for (const char *sign :
       {"can't allocate memory", "not enough memory", "out of memory", "bad_alloc"})
    if (text.find(sign) != std::string::npos)
      return "out of memory; use more nodes, a smaller system or a smaller model";

  // TorchScript puts its own traceback first and the cause in the last line
  std::string first, last;
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(begin, end - begin);
    if (line.find_first_not_of(" \t~^<-") != std::string::npos) {
      if (first.empty()) first = line;
      last = line;
    }
    begin = end + 1;
  }
  return printable(first.find("TorchScript interpreter") == std::string::npos ? first : last, 400);
}

torch::Device choose_device(const std::string &name, int local_rank)
{
  const int num_gpus =
      torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
  if (name == "cpu" || (name == "auto" && num_gpus == 0)) return {torch::kCPU};
  if (num_gpus == 0)
    throw std::runtime_error("device " + printable(name) + " was asked for, but this torch sees no "
                             "GPU; use device cpu or install a torch with CUDA and rebuild the "
                             "plugin");
  int index = local_rank % num_gpus;
  if (name.rfind("cuda:", 0) == 0)    // a number too long for an int is no GPU either
    index = static_cast<int>(std::min(std::strtoul(name.c_str() + 5, nullptr, 10), 1000000ul));
  if (index >= num_gpus)
    throw std::runtime_error("device " + printable(name) + " was asked for, but there are only " +
                             std::to_string(num_gpus) + " GPUs, numbered from 0; use device cuda, "
                             "which gives each rank one of them");
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

/// An exchange that moves nothing and records the width of the rows.
struct WidthRecorder : Exchange {
  int64_t bytes = 0;
  void forward(void *, int64_t, int64_t, int64_t width, bool is_double) override
  {
    const auto size = static_cast<int64_t>(is_double ? sizeof(double) : sizeof(float));
    bytes = std::max(bytes, width * size);
  }
  void reverse(void *, int64_t, int64_t, int64_t, bool) override {}
};

/// A tensor that shares memory with the caller, whose memory is that of the device if it is `there`.
template <typename T>
torch::Tensor view(const T *data, at::IntArrayRef shape, const torch::Device &device,
                   bool there = false)
{
  // PyTorch has no constant tensors; the model does not write to its inputs
  const auto options = torch::dtype(c10::CppTypeToScalarType<T>::value);
  auto tensor = torch::from_blob(const_cast<T *>(data), shape,
                                 options.device(there ? device : torch::Device(torch::kCPU)));
  return tensor.to(device);
}

}    // namespace

struct TDNModel::Impl {
  Metadata metadata;
  torch::Device device{torch::kCPU};
  std::unique_ptr<Backend> backend;
  int64_t exchange_bytes = 0;
  double bytes_per_node = 0.0, bytes_per_edge = 0.0;
  torch::Tensor atom_energy, gradient_or_forces, members;    // memory of the last evaluation
  PositionOutput from_positions;
  std::array<const void *, 6> read{};    // arrays of pairs, in the last evaluation
  DeviceArrays arrays;    // on a GPU
  std::optional<c10::Stream> stream;    // with graphs, which the default stream cannot record

  Evaluation evaluate(const Graph &graph, Exchange *exchange, bool each_member = false)
  {
    const BackendInput input{view(graph.species, {graph.num_all}, device),
                             view(graph.edge_index, {2, graph.num_edges}, device),
                             view(graph.edge_vec, {graph.num_edges, 3}, device), graph.num_local};
    const BackendOutput found = backend->run(input, exchange, each_member);
    const bool direct = metadata.direct_forces;
    const int64_t copies = each_member ? metadata.committee : 1;
    const int64_t num_vectors = direct ? graph.num_local : graph.num_edges;
    if (found.atom_energy.numel() != copies * graph.num_local ||
        found.gradient_or_forces.numel() != copies * 3 * num_vectors)
      throw std::runtime_error("the model returned arrays of unexpected size");

    const auto fetch = [](const torch::Tensor &values) {
      return values.to(torch::kCPU, torch::kFloat64).contiguous();
    };
    const auto mean = [each_member](const torch::Tensor &values) {
      return each_member ? values.mean(0) : values;
    };
    members = each_member ? fetch(found.gradient_or_forces) : torch::Tensor();
    atom_energy = fetch(mean(found.atom_energy));
    gradient_or_forces = fetch(mean(found.gradient_or_forces));
    const auto *values = gradient_or_forces.data_ptr<double>();
    return {atom_energy.data_ptr<double>(), direct ? nullptr : values, direct ? values : nullptr,
            each_member ? members.data_ptr<double>() : nullptr};
  }

  Forces evaluate(const Pairs &pairs, Exchange *exchange, bool per_atom, bool each_member = false)
  {
    const c10::OptionalStreamGuard scope(stream);
    const int64_t n = pairs.num_local;
    const bool there = pairs.on_device;
    const PositionInput input = device.is_cpu() || there
        ? PositionInput{view(pairs.positions, {pairs.num_rows, 3}, device, there),
                        view(pairs.center, {n}, device, there),
                        pairs.found ? pairs.found->begin
                                    : view(pairs.begin, {n + 1}, device, there),
                        pairs.found ? pairs.found->other
                                    : view(pairs.other, {pairs.num_pairs()}, device, there),
                        view(pairs.node, {pairs.num_rows}, device, there),
                        view(pairs.species, {pairs.num_all}, device, there), per_atom}
        : arrays.send(pairs, per_atom, device, stream.has_value());
    read = {input.positions.data_ptr(), input.center.data_ptr(), input.begin.data_ptr(),
            input.other.data_ptr(),     input.node.data_ptr(),   input.species.data_ptr()};
    from_positions = backend->run(input, exchange, each_member);
    PositionOutput &found = from_positions;
    members = each_member ? found.forces.contiguous() : torch::Tensor();
    const int64_t atoms = per_atom ? n : 0;
    const double *results[5];
    torch::Tensor *const values[] = {&found.atom_energy, &found.forces, &found.virial,
                                     &found.atom_virial, &found.centroid};
    const int64_t sizes[] = {n, 3 * n, 9, 9 * atoms, 9 * atoms};
    std::vector<torch::Tensor *> wanted(values, values + 5);
    for (torch::Tensor *const value : wanted)
      *value = (each_member ? value->mean(0) : *value).contiguous();
    if (each_member) wanted.push_back(&members);
    if (!there) arrays.fetch(wanted);
    for (int k = 0; k < 5; k++) {
      if (values[k]->numel() != sizes[k] || values[k]->scalar_type() != torch::kFloat64)
        throw std::runtime_error("the model returned arrays of unexpected size");
      results[k] = values[k]->data_ptr<double>();
    }
    if (each_member && members.numel() != metadata.committee * 3 * n)
      throw std::runtime_error("the model returned arrays of unexpected size");
    return {results[0], results[1], results[2], results[3], results[4],
            each_member ? members.data_ptr<double>() : nullptr};
  }

  /// Peak of allocations for copies of the reference, the first `connected` of which have edges.
  double measure(const Reference &reference, int64_t copies, int64_t connected)
  {
    const int64_t num_atoms = reference.num_atoms(), num_edges = reference.num_edges();
    std::vector<int64_t> species, edge_index(2 * connected * num_edges);
    std::vector<double> edge_vec;
    for (int64_t k = 0; k < copies; k++) {
      species.insert(species.end(), reference.species.begin(), reference.species.end());
      if (k >= connected) continue;
      edge_vec.insert(edge_vec.end(), reference.edge_vec.begin(), reference.edge_vec.end());
      for (int row = 0; row < 2; row++)
        for (int64_t e = 0; e < num_edges; e++)
          edge_index[(row * connected + k) * num_edges + e] =
              reference.edge_index[row * num_edges + e] + k * num_atoms;
    }
    const Graph graph{species.data(),  copies * num_atoms, copies * num_atoms, edge_index.data(),
                      edge_vec.data(), connected * num_edges};
    atom_energy = gradient_or_forces = members = torch::Tensor();
    from_positions = {};
    arrays = {};
    backend->release();
    const PairsOfEdges edges(graph);
    return static_cast<double>(peak_allocation(device.type(), [&] {
      if (backend->takes_positions())
        evaluate(edges.pairs, nullptr, true);
      else
        evaluate(graph, nullptr);
    }));
  }

  /// The peak as a linear function of nodes and edges, from two evaluations.
  void measure_memory(const Reference &reference)
  {
    const auto num_atoms = static_cast<double>(reference.num_atoms());
    const auto num_edges = static_cast<double>(reference.num_edges());
    const int64_t half = 1 + 32 / reference.num_atoms();    // enough atoms to outweigh constants
    const double whole = measure(reference, 2 * half, 2 * half);
    const double sparse = measure(reference, 2 * half, half);
    const auto copies = static_cast<double>(half);
    bytes_per_edge = std::max(0.0, (whole - sparse) / (copies * num_edges));
    bytes_per_node = std::max(0.0, (2.0 * sparse - whole) / (2.0 * copies * num_atoms));
  }

  void check_reference(const Reference &reference, bool compare)
  {
    const Graph graph{reference.species.data(),    reference.num_atoms(),
                      reference.num_atoms(),       reference.edge_index.data(),
                      reference.edge_vec.data(),   reference.num_edges()};
    WidthRecorder recorder;
    if (backend->takes_positions()) {
      const PairsOfEdges edges(graph);
      evaluate(edges.pairs, &recorder, false);    // also warms up allocators and kernels
      const Forces found = evaluate(edges.pairs, nullptr, false);
      if (compare) compare_with_reference(reference, found);
    } else {
      evaluate(graph, &recorder);
      const Evaluation found = evaluate(graph, nullptr);
      if (compare) compare_with_reference(reference, found);
    }
    exchange_bytes = recorder.bytes;
    measure_memory(reference);
  }
};

TDNModel::TDNModel(const std::string &path, const std::string &device, int local_rank, bool check) :
    impl(std::make_unique<Impl>())
{
  try {
    ModelArchive archive(path);
    impl->metadata = parse_metadata(archive.metadata);
    // machine code runs on one kind of device
    const std::string &target = impl->metadata.target.device;
    impl->device = choose_device(device == "auto" && !target.empty() ? target : device, local_rank);
    if (archive.reference.empty())
      throw std::runtime_error("its reference.json is missing; export it again");
    const Reference reference = parse_reference(archive.reference, impl->metadata);
    impl->backend = archive.machine_code
        ? load_aotinductor(*archive.reader, impl->metadata, impl->device)
        : load_torchscript(path, impl->metadata, impl->device);
    archive.reader.reset();
    impl->check_reference(reference, check);
  } catch (const std::exception &error) {
    throw std::runtime_error("cannot use the model file " + path + ": " + one_line(error));
  }
}

TDNModel::~TDNModel() = default;

const Metadata &TDNModel::metadata() const
{
  return impl->metadata;
}

std::string TDNModel::device() const
{
  return impl->device.str();
}

int64_t TDNModel::exchange_bytes() const
{
  return impl->exchange_bytes;
}

bool TDNModel::takes_positions() const
{
  return impl->backend->takes_positions();
}

bool TDNModel::has_read(const Pairs &pairs) const
{
  const void *const there[] = {pairs.positions, pairs.center, pairs.begin,
                               pairs.other,     pairs.node,   pairs.species};
  return std::equal(impl->read.begin(), impl->read.end(), there, [](const void *a, const void *b) {
    return !a || a == b;    // null: of an empty tensor
  });
}

void TDNModel::use_graphs(bool on)
{
  if (on == impl->stream.has_value() || impl->device.is_cpu()) return;
  impl->stream.reset();
  if (on)
    impl->stream = c10::impl::VirtualGuardImpl(impl->device.type())
                       .getStreamFromGlobalPool(impl->device, /*isHighPriority=*/false);
  impl->backend->use_graphs(on);
}

std::string TDNModel::graphs_failure() const
{
  const std::string reason = impl->backend->graphs_failure();
  return printable(reason.substr(0, reason.find('\n')), 400);
}

double TDNModel::memory_needed(int64_t num_all, int64_t num_edges) const
{
  return impl->bytes_per_node * static_cast<double>(num_all) +
      impl->bytes_per_edge * static_cast<double>(num_edges);
}

double TDNModel::memory_left() const
{
  return available_memory(impl->device);
}

int TDNModel::gpu_index() const
{
  return impl->device.is_cpu() ? -1 : impl->device.index();
}

Evaluation TDNModel::evaluate(const Graph &graph, Exchange *exchange, bool members)
{
  try {
    return impl->evaluate(graph, exchange, members);
  } catch (const std::exception &error) {
    throw std::runtime_error("the evaluation of the model failed: " + one_line(error));
  }
}

Forces TDNModel::evaluate(const Pairs &pairs, Exchange *exchange, bool per_atom, bool members)
{
  try {
    return impl->evaluate(pairs, exchange, per_atom, members);
  } catch (const std::exception &error) {
    throw std::runtime_error("the evaluation of the model failed: " + one_line(error));
  }
}

std::shared_ptr<const FoundPairs> TDNModel::find_pairs(const double *positions, int64_t num_rows,
                                                       int64_t num_centers, double distance,
                                                       std::vector<uint8_t> *reached)
{
  const torch::Device &device = impl->device;
  try {
    const c10::OptionalStreamGuard scope(impl->stream);
    return FoundPairs::find(device.is_cpu()
                                ? view(positions, {num_rows, 3}, device)
                                : impl->arrays.send_positions(positions, num_rows, device),
                            num_centers, distance, reached);
  } catch (const std::exception &error) {
    throw std::runtime_error("no neighbors were found: " + one_line(error));
  }
}

void TDNModel::copy(const FoundPairs &found, std::vector<int64_t> &begin,
                    std::vector<int32_t> &other)
{
  found.copy(begin, other);
}

double TDNModel::host_bytes(const FoundPairs &found)
{
  return found.begin.is_cpu() ? static_cast<double>(found.begin.nbytes() + found.other.nbytes())
                              : 0.0;
}

void TDNModel::set_num_threads(int num_threads)
{
  at::set_num_threads(num_threads);
}

int TDNModel::num_threads()
{
  return at::get_num_threads();
}

}    // namespace tdn
