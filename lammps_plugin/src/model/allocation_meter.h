// SPDX-License-Identifier: MIT

/* Counts what PyTorch allocates on this thread. */

#ifndef TDN_ALLOCATION_METER_H
#define TDN_ALLOCATION_METER_H

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace tdn {

/// Largest sum of the tensors that live at once, in bytes, on devices of one type.
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

  /// Peak of what `work` allocates.
  template <typename Work> static int64_t measure(c10::DeviceType type, const Work &work)
  {
    const auto meter = std::make_shared<AllocationMeter>(type);
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
    work();
    return meter->peak;
  }

 private:
  c10::DeviceType type;
  int64_t current = 0, peak = 0;
};

}    // namespace tdn

#endif
