// SPDX-License-Identifier: MIT

#include "stream_scope.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace tdn {

struct StreamScope::Guard {
  c10::cuda::CUDAStreamGuard guard;
};

StreamScope::StreamScope(void *stream, int gpu) :
    guard(new Guard{c10::cuda::CUDAStreamGuard(c10::cuda::getStreamFromExternal(
        static_cast<cudaStream_t>(stream), static_cast<c10::DeviceIndex>(gpu)))})
{
}

StreamScope::~StreamScope() = default;

}    // namespace tdn
