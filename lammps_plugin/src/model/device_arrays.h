// SPDX-License-Identifier: MIT

/* Arrays of the caller on a GPU, and results in memory of the host. */

#ifndef TDN_DEVICE_ARRAYS_H
#define TDN_DEVICE_ARRAYS_H

#include "backend.h"
#include "found_pairs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace tdn {

/// With 10 percent to spare.
inline int64_t with_room(int64_t count) { return count + count / 10 + 1; }

/** An array in memory of the host that a GPU reads and writes by itself, and its copy there. Both
    keep their memory, with some to spare. */
class PinnedArray {
 public:
  /// Bring `count` numbers to the device, unless the same are there already.
  template <typename T> at::Tensor send(const T *data, int64_t count, const at::Device &device)
  {
    constexpr at::ScalarType type = c10::CppTypeToScalarType<T>::value;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (reserve(count, type, device)) {
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

  /// All of the memory on the device, beyond what was sent.
  const at::Tensor &all() const { return there; }

  /// Begin to bring an array to the host; there when the stream has been waited for.
  at::Tensor fetch(const at::Tensor &values)
  {
    reserve(values.numel(), values.scalar_type(), values.device());
    const at::Tensor to = host.narrow(0, 0, values.numel()).view(values.sizes());
    to.copy_(values, /*non_blocking=*/true);
    return to;
  }

 private:
  at::Tensor host, there;
  int64_t sent = -1;    // numbers that are there

  /// Whether new memory was needed.
  bool reserve(int64_t count, at::ScalarType type, const at::Device &device)
  {
    if (host.defined() && host.numel() >= count && host.scalar_type() == type) return false;
    const auto options = at::TensorOptions().dtype(type).pinned_memory(!device.is_cpu());
    host = at::empty({with_room(count)}, options);
    return true;
  }
};

/// What a GPU has of the caller: the list since its last build, positions and species of a step.
class DeviceArrays {
 public:
  /// Positions [count, 3], which are sent once even if they are needed twice in a step.
  at::Tensor send_positions(const double *data, int64_t count, const at::Device &device)
  {
    return positions.send(data, 3 * count, device).view({count, 3});
  }

  /** With `steady` lists that follow each other have the same memory and the same sizes as long as
      their rows and pairs fit in there: behind these are further ones, which no center has. */
  PositionInput send(const Pairs &pairs, bool per_atom, const at::Device &device, bool steady)
  {
    const bool in_place = pairs.found && !steady;
    at::Tensor x = send_positions(pairs.positions, pairs.num_rows, device);
    if (steady) {
      const int64_t rows = positions.all().numel() / 3;
      x = positions.all().narrow(0, 0, 3 * rows).view({rows, 3});
    }
    if (pairs.build == 0 || pairs.build != build) {
      build = 0;
      if (!steady) center = begin = other = node = at::Tensor();    // frees the old list first
      keep(center, on_host(pairs.center, pairs.num_local), pairs.num_local, device);
      keep(node, on_host(pairs.node, pairs.num_rows), x.size(0), device);
      if (!in_place) {
        const int64_t n = pairs.num_local;
        const at::Tensor others =
            pairs.found ? pairs.found->other : on_host(pairs.other, pairs.num_pairs());
        int64_t room = others.numel();
        if (steady && other.defined() && other.numel() >= room)
          room = other.numel();
        else if (steady)
          room = with_room(room);
        keep(begin, pairs.found ? pairs.found->begin : on_host(pairs.begin, n + 1), n + 1, device);
        keep(other, others, room, device);
      }
      build = pairs.build;
    }
    return {x, center, in_place ? pairs.found->begin : begin,
            in_place ? pairs.found->other : other, node,
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
  template <typename T> static at::Tensor on_host(const T *data, int64_t count)
  {
    const auto type = c10::CppTypeToScalarType<T>::value;
    return count > 0 ? at::from_blob(const_cast<T *>(data), {count}, type) : at::empty({0}, type);
  }

  /// An array of a size on the device that begins with values; the old one if it has that size.
  static void keep(at::Tensor &there, const at::Tensor &values, int64_t size,
                   const at::Device &device)
  {
    if (!there.defined() || there.numel() != size)
      there = at::zeros({size}, values.options().device(device));
    there.narrow(0, 0, values.numel()).copy_(values);
  }

  int64_t build = 0;    // of the list that is there; 0 for none
  at::Tensor center, begin, other, node;
  PinnedArray positions, species;
  std::vector<PinnedArray> hosts;
};

}    // namespace tdn

#endif
