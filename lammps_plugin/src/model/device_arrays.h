// SPDX-License-Identifier: MIT

/* Arrays of the caller on a GPU, and results in memory of the host. */

#ifndef TDN_DEVICE_ARRAYS_H
#define TDN_DEVICE_ARRAYS_H

#include "backend.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace tdn {

/** An array in memory of the host that a GPU reads and writes by itself, and its copy there. Both
    keep their memory, with 10 percent to spare. */
class PinnedArray {
 public:
  /// Bring `count` numbers to the device, unless the same are there already.
  template <typename T> at::Tensor send(const T *data, int64_t count, const at::Device &device)
  {
    constexpr at::ScalarType type = c10::CppTypeToScalarType<T>::value;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (reserve(count, type)) {
      there = at::empty({host.numel()}, at::TensorOptions().dtype(type).device(device));
      sent = -1;
    }
    const at::Tensor from = host.narrow(0, 0, count), to = there.narrow(0, 0, count);
    if (bytes == 0 || (count == sent && !std::memcmp(from.data_ptr(), data, bytes))) return to;
    std::memcpy(from.data_ptr(), data, bytes);
    sent = count;
    to.copy_(from, /*non_blocking=*/true);
    return to;
  }

  /// Begin to bring an array to the host; there when the stream has been waited for.
  at::Tensor fetch(const at::Tensor &values)
  {
    reserve(values.numel(), values.scalar_type());
    const at::Tensor to = host.narrow(0, 0, values.numel()).view(values.sizes());
    to.copy_(values, /*non_blocking=*/true);
    return to;
  }

 private:
  at::Tensor host, there;
  int64_t sent = -1;    // numbers that are there

  /// Whether new memory was needed.
  bool reserve(int64_t count, at::ScalarType type)
  {
    if (host.defined() && host.numel() >= count && host.scalar_type() == type) return false;
    const int64_t room = count + count / 10 + 1;
    host = at::empty({room}, at::TensorOptions().dtype(type).pinned_memory(true));
    return true;
  }
};

/// What a GPU has of the caller: the list since its last build, positions and species of a step.
class DeviceArrays {
 public:
  PositionInput send(const Pairs &pairs, bool per_atom, const at::Device &device)
  {
    if (pairs.build == 0 || pairs.build != build) {
      build = 0;
      const auto copy = [&](const auto *data, int64_t count) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(data)>>;
        const auto type = c10::CppTypeToScalarType<T>::value;
        const at::Tensor to = at::empty({count}, at::TensorOptions().dtype(type).device(device));
        if (count > 0) to.copy_(at::from_blob(const_cast<T *>(data), {count}, type));
        return to;
      };
      center = begin = other = node = at::Tensor();    // frees the old list first
      center = copy(pairs.center, pairs.num_local);
      begin = copy(pairs.begin, pairs.num_local + 1);
      other = copy(pairs.other, pairs.num_pairs());
      node = copy(pairs.node, pairs.num_rows);
      build = pairs.build;
    }
    const at::Tensor x = positions.send(pairs.positions, 3 * pairs.num_rows, device);
    return {x.view({pairs.num_rows, 3}), center, begin, other, node,
            species.send(pairs.species, pairs.num_all, device), per_atom};
  }

  /// Replace results by copies in memory of the host.
  void fetch(const std::vector<at::Tensor *> &results)
  {
    if (results.empty()) return;
    const at::Device device = results[0]->device();
    if (device.is_cpu()) return;
    hosts.resize(std::max(hosts.size(), results.size()));
    for (size_t k = 0; k < results.size(); k++) *results[k] = hosts[k].fetch(*results[k]);
    c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
  }

 private:
  int64_t build = 0;    // of the list that is there; 0 for none
  at::Tensor center, begin, other, node;
  PinnedArray positions, species;
  std::vector<PinnedArray> hosts;
};

}    // namespace tdn

#endif
