#include "pairs.h"

#include "pair_cuda_tensors.h"

namespace tdn {

void pair_zbl_cuda(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                   const Tensor &energy, at::TensorList sums)
{
  const DeviceList list("pair_zbl", TDN_PAIR_ARGUMENTS);
  const cuda::PairRepulsion a{list.list<double>({}),
                              positions.size(0),
                              other.numel(),
                              number.numel(),
                              number.const_data_ptr<double>(),
                              pair_cutoff.const_data_ptr<double>(),
                              written<double>(energy),
                              center_sums(sums)};
  cuda::check_launch(cuda::launch_repulsion(a, cuda::current_queue(positions)));
}

}    // namespace tdn
