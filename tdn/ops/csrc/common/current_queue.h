// PyTorch's current stream, for files that include PyTorch.

#ifndef TDN_CUDA_CURRENT_QUEUE_H
#define TDN_CUDA_CURRENT_QUEUE_H

#include "queue.h"

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace tdn::cuda {

inline Queue current_queue(const at::Tensor &x)
{
  const auto device = x.device().index();
  return {device, c10::cuda::getCurrentCUDAStream(device).stream()};
}

// `error`: what a launch returned.
inline void check_launch(int error) { C10_CUDA_CHECK(static_cast<cudaError_t>(error)); }

}    // namespace tdn::cuda

#endif
