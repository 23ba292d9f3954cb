#include "pair_search_tensors.h"

#include "common/current_queue.h"

namespace tdn {

std::tuple<Tensor, Tensor, Tensor> find_pairs_cuda(const Tensor &positions, int64_t num_centers,
                                                   double distance)
{
  const c10::cuda::CUDAGuard guard(positions.device());
  return find_pairs(positions, num_centers, distance, [&](const PairSearch &search) {
    cuda::check_launch(
        cuda::launch_search(search, num_centers, cuda::current_queue(positions)));
  });
}

}    // namespace tdn
