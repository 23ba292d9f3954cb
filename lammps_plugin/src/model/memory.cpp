// SPDX-License-Identifier: MIT

#include "memory.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/version.h>

// the memory of a GPU, whoever made it
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 10)
#define TDN_HAS_DEVICE_MEMORY
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

namespace tdn {

namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

/// First number in a file; infinite if there is none, as in "max".
double number_in(const std::string &path)
{
  std::ifstream file(path);
  double value;
  return file >> value ? value : unlimited;
}

double left_on_machine()
{
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line))
    if (line.compare(0, 13, "MemAvailable:") == 0) return 1024.0 * std::stod(line.substr(13));
  return unlimited;
}

/// What the control groups (version 2) from this process's one upwards leave.
double left_in_control_group()
{
  std::ifstream file("/proc/self/cgroup");
  std::string line, group;
  while (std::getline(file, line))
    if (line.compare(0, 3, "0::") == 0) group = line.substr(3);
  if (group.empty()) return unlimited;

  double left = unlimited;
  while (true) {
    const std::string folder = "/sys/fs/cgroup" + group;
    const double limit = number_in(folder + "/memory.max");
    if (limit < unlimited) {
      // pages of files are given back when memory is asked for
      double used = number_in(folder + "/memory.current");
      std::ifstream statistics(folder + "/memory.stat");
      std::string name;
      double value;
      while (statistics >> name >> value)
        if (name == "inactive_file" || name == "active_file") used -= value;
      left = std::min(left, std::max(0.0, limit - used));
    }
    if (group.empty() || group == "/") return left;
    group.resize(group.find_last_of('/'));
  }
}

double left_in_process()
{
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return unlimited;
  const double used = number_in("/proc/self/statm") * static_cast<double>(sysconf(_SC_PAGESIZE));
  return std::max(0.0, static_cast<double>(limit.rlim_cur) - used);
}

/// Told by PyTorch of everything that it allocates on this thread.
class AllocationMeter : public c10::MemoryReportingInfoBase {
 public:
  explicit AllocationMeter(c10::DeviceType type) : type(type) {}

  void reportMemoryUsage(void *, int64_t bytes, size_t, size_t, c10::Device device) override
  {
    if (device.type() != type) return;
    current += bytes;
    peak = std::max(peak, current);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t current = 0, peak = 0;

 private:
  c10::DeviceType type;
};

}    // namespace

double available_memory(const c10::Device &device)
{
  if (device.is_cpu())
    return std::min({left_on_machine(), left_in_control_group(), left_in_process()});
#ifdef TDN_HAS_DEVICE_MEMORY
  // what the device has left, and what PyTorch holds of it without use
  auto *allocator = c10::getDeviceAllocator(device.type());
  const auto statistics = allocator->getDeviceStats(device.index());
  const auto unused = statistics.reserved_bytes[0].current - statistics.allocated_bytes[0].current;
  const auto left = allocator->getMemoryInfo(device.index()).first;
  return static_cast<double>(left) + static_cast<double>(unused);
#else
  return unlimited;
#endif
}

int64_t peak_allocation(c10::DeviceType type, const std::function<void()> &work)
{
  const auto meter = std::make_shared<AllocationMeter>(type);
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  work();
  return meter->peak;
}

}    // namespace tdn
