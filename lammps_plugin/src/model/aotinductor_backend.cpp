// SPDX-License-Identifier: MIT

/* Files of machine code that AOTInductor compiled (*.tdn.pt2). */

#include "backend.h"

#include "printable.h"

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/GradMode.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace tdn {

namespace {

namespace fs = std::filesystem;

const char remedy[] = "; export the checkpoint here, or use a TorchScript file (*.tdn.pth)";

/// A temporary folder; removed with this object, or earlier.
class TemporaryFolder {
 public:
  TemporaryFolder()
  {
    std::error_code failure;
    std::string name = (fs::temp_directory_path(failure) / "tdn-XXXXXX").string();
    if (failure || !mkdtemp(name.data()))
      throw std::runtime_error("its machine code cannot be unpacked: no folder for temporary "
                               "files can be written; set TMPDIR to one");
    path = name;
  }
  ~TemporaryFolder() { remove(); }
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;

  void remove()
  {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
    path.clear();
  }

  fs::path path;
};

/// Whether this processor runs machine code for another one.
bool runs(const std::string &compiled, const std::string &here)
{
  static const std::vector<std::string> order = {"DEFAULT", "AVX2", "AVX512"};    // each includes
  const auto place = std::find(order.begin(), order.end(), compiled);             // those before
  const auto mine = std::find(order.begin(), order.end(), here);
  return place != order.end() && mine != order.end() ? place <= mine : compiled == here;
}

void check_target(const Target &target, const at::Device &device)
{
  const std::string type = c10::DeviceTypeName(device.type(), true);
  const std::string release =
      std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR);
  if (target.device.empty())
    throw std::runtime_error("its metadata does not say for what it is compiled; export it again");
  if (target.device != type)
    throw std::runtime_error("it is compiled for device " + printable(target.device) +
                             ", found " + type + remedy);
  if (target.torch != release)
    throw std::runtime_error("it is compiled for torch " + printable(target.torch) + ", found " +
                             release + remedy);
  // the kind of GPU is not compared, which takes the vendor's library; PyTorch refuses other code
  const std::string here = at::get_cpu_capability();
  if (device.is_cpu() && !runs(target.processor, here))
    throw std::runtime_error("it is compiled for processors with " + printable(target.processor) +
                             ", this one has " + here + remedy);
}

/// Write the parts of the machine code to files. Returns the path of the shared library.
fs::path unpack(caffe2::serialize::PyTorchStreamReader &archive, const fs::path &folder)
{
  fs::path library;
  const std::string top = machine_code_folder;
  for (const auto &record : archive.getAllRecords()) {
    if (record.compare(0, top.size(), top) != 0) continue;
    const std::string name = record.substr(record.find_last_of('/') + 1);
    const fs::path path = folder / name;
    if (name.empty() || name[0] == '.' || fs::exists(path))
      throw std::runtime_error("its part " + printable(record) + " has no place; export it again");
    const auto [data, size] = archive.getRecord(record);
    std::ofstream file(path, std::ios::binary);
    file.write(static_cast<const char *>(data.get()), static_cast<std::streamsize>(size));
    file.close();
    if (!file)
      throw std::runtime_error("its machine code cannot be unpacked to " + folder.string() +
                               " (disk full?); make room or set TMPDIR to another folder");
    if (path.extension() == ".so") {
      if (!library.empty())
        throw std::runtime_error("it holds several networks, expected one; export it again");
      library = path;
    }
  }
  // the file next to it lists the operators that the library calls
  if (library.empty() || !fs::exists(fs::path(library).replace_extension(".json")))
    throw std::runtime_error("a part of its machine code is missing; export it again");
  return library;
}

using Runner = torch::inductor::AOTIModelContainerRunner;

/// The last parameters of this function depend on the release of PyTorch; all can be false.
template <typename... Others>
std::unique_ptr<Runner> create(std::unique_ptr<Runner> (*function)(const std::string &, size_t,
                                                                   const std::string &,
                                                                   const std::string &, Others...),
                               const fs::path &library, const at::Device &device)
{
  return function(library.string(), 1, device.str(), library.parent_path().string(), Others{}...);
}

std::unique_ptr<Runner> load_library(const fs::path &library, const at::Device &device)
{
  const auto makers = torch::inductor::getAOTIModelRunnerRegistry();
  const auto maker = makers.find(c10::DeviceTypeName(device.type(), true));
  if (maker == makers.end())
    throw std::runtime_error("this torch runs no machine code on " + device.str() + remedy);
  try {
    return create(maker->second, library, device);
  } catch (const std::exception &error) {
    const std::string reason = error.what();
    if (reason.find("tdn::") != std::string::npos)
      throw std::runtime_error("it needs operators that this libtdn_ops.so lacks; "
                               "run: tdn-ops build");
    if (reason.find("failed to map segment") != std::string::npos)
      throw std::runtime_error("its machine code may not run from " +
                               library.parent_path().parent_path().string() +
                               "; set TMPDIR to a folder where programs may run");
    throw;
  }
}

constexpr int64_t padding = 2;    // atoms, with an edge from one to the other and back

/// Leaves out the rows of the padding, which come first and which other ranks do not have.
class WithoutPadding : public Exchange {
 public:
  explicit WithoutPadding(Exchange *inner) : inner(inner) {}
  void forward(void *x, int64_t num_local, int64_t num_all, int64_t width, bool is_double) override
  {
    inner->forward(skip(x, width, is_double), num_local - padding, num_all - padding, width,
                   is_double);
  }
  void reverse(void *x, int64_t num_local, int64_t num_all, int64_t width, bool is_double) override
  {
    inner->reverse(skip(x, width, is_double), num_local - padding, num_all - padding, width,
                   is_double);
  }

 private:
  static void *skip(void *x, int64_t width, bool is_double)
  {
    const std::size_t size = is_double ? sizeof(double) : sizeof(float);
    return static_cast<char *>(x) + padding * width * size;
  }
  Exchange *inner;
};

/// Two more local atoms before all others, which are neighbors of each other only.
BackendInput padded(const BackendInput &input)
{
  const at::Tensor pair =
      at::tensor({0, 1, 1, 0}, input.edge_index.options()).view({2, padding});
  const at::Tensor vectors = at::tensor({1.0, 0.0, 0.0, -1.0, 0.0, 0.0}, input.edge_vec.options());
  return {at::cat({at::zeros({padding}, input.species.options()), input.species}),
          at::cat({pair, input.edge_index + padding}, 1),
          at::cat({vectors.view({padding, 3}), input.edge_vec}), input.num_local + padding};
}

class AOTInductorBackend : public Backend {
 public:
  AOTInductorBackend(caffe2::serialize::PyTorchStreamReader &archive, const at::Device &device) :
      device(device), runner(load_library(unpack(archive, folder.path), device))
  {
  }

  BackendOutput run(const BackendInput &input, Exchange *exchange, bool) override
  {
    WithoutPadding trimmed(exchange);
    // PyTorch assumes that variable sizes are at least two
    const bool small = std::min(input.num_local, input.edge_index.size(1)) < padding;
    const BackendInput given = small ? padded(input) : input;
    const ExchangeScope exchange_scope(small && exchange ? &trimmed : exchange);
    const c10::DeviceGuard device_guard(device);
    const c10::AutoGradMode no_gradients(false);    // they are part of the function

    const at::Tensor local = at::zeros({given.num_local}, given.species.options());
    std::vector<at::Tensor> results =
        runner->run({given.species.contiguous(), given.edge_index.contiguous(),
                     given.edge_vec.contiguous(), local});
    folder.remove();    // not earlier: on GPUs the first evaluation reads files
    if (results.size() != 2)
      throw std::runtime_error("the model returned " + std::to_string(results.size()) +
                               " arrays, expected 2");
    if (!small) return {results[0], results[1]};
    return {results[0].slice(0, padding), results[1].slice(0, padding)};
  }

 private:
  TemporaryFolder folder;
  at::Device device;
  std::unique_ptr<Runner> runner;
};

}    // namespace

std::unique_ptr<Backend> load_aotinductor(caffe2::serialize::PyTorchStreamReader &archive,
                                          const Metadata &metadata, const at::Device &device)
{
  check_target(metadata.target, device);
  if (metadata.committee > 1)
    throw std::runtime_error("it is said to be a committee as machine code, which does not exist; "
                             "export it with --backend torchscript");
  return std::make_unique<AOTInductorBackend>(archive, device);
}

}    // namespace tdn
