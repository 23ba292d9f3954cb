// The tensors of a list of pairs, checked, and the structure that points to them; on CPU and GPU.

#ifndef TDN_PAIR_LIST_TENSORS_H
#define TDN_PAIR_LIST_TENSORS_H

#include "pair_kernels.h"
#include "pairs.h"

namespace tdn {

struct PairListTensors {
  Tensor positions, center, ptr, other, node, species;

  PairListTensors(const char *name, TDN_PAIR_PARAMETERS) :
      positions(positions), center(center), ptr(ptr), other(other), node(node), species(species)
  {
    const auto is = [&](const Tensor &t, at::ScalarType type, int64_t dim) {
      return t.scalar_type() == type && t.dim() == dim && t.is_contiguous() &&
          t.device() == positions.device();
    };
    TORCH_CHECK_VALUE(is(positions, at::kDouble, 2) && positions.size(1) == 3 &&
                          is(center, at::kInt, 1) && is(ptr, at::kLong, 1) &&
                          ptr.numel() == center.numel() + 1 && is(other, at::kInt, 1) &&
                          is(node, at::kInt, 1) && node.numel() == positions.size(0) &&
                          is(species, at::kLong, 1) && species.numel() >= center.numel(),
                      name, ": expected contiguous positions float64 [rows, 3], center int32 [n], ",
                      "ptr int64 [n + 1], other int32, node int32 [rows], species int64 [n_all] ",
                      "on ", positions.device(), ", found ", positions.sizes(), ", ",
                      center.sizes(), ", ", ptr.sizes(), ", ", other.sizes(), ", ", node.sizes(),
                      ", ", species.sizes());
  }

  int64_t num_centers() const { return center.numel(); }
  int64_t num_nodes() const { return species.numel(); }

  template <typename T> PairList<T> list(const RadialTable<T> &table) const
  {
    return {positions.const_data_ptr<double>(), center.const_data_ptr<int32_t>(),
            ptr.const_data_ptr<int64_t>(),      other.const_data_ptr<int32_t>(),
            node.const_data_ptr<int32_t>(),     species.const_data_ptr<int64_t>(),
            num_centers(),                      num_nodes(),
            table};
  }
};

}    // namespace tdn

#endif
