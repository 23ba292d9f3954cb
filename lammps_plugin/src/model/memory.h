// SPDX-License-Identifier: MIT

/* How much memory there is left, and how much an evaluation takes. */

#ifndef TDN_MEMORY_H
#define TDN_MEMORY_H

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

namespace tdn {

/** Bytes that can still be allocated on a device; infinite where nothing of it is known. On the CPU
    the smallest of what the machine has left, what the control group (container or batch job)
    allows, and the process's own limit (ulimit -v). */
double available_memory(const c10::Device &device);

/// Largest sum of the tensors on a type of device that live at once during `work`, in bytes.
int64_t peak_allocation(c10::DeviceType type, const std::function<void()> &work);

}    // namespace tdn

#endif
