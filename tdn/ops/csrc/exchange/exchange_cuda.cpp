#include "exchange_ops.h"

#include "row_transport.h"
#include "common/current_queue.h"

#include <ATen/ops/empty.h>

namespace tdn {

using at::Tensor;

// Unless the transport takes what is on a GPU, rows go through memory of the host that the GPU can
// read and write by itself.
void exchange_in_place_cuda(const Tensor &x, int64_t num_local)
{
  TORCH_CHECK_VALUE(x.dim() >= 1 && x.is_contiguous(),
                    "exchange_: x must be contiguous, with a row per atom");
  const int64_t num_all = x.size(0);
  Exchange *const transport = transport_for("exchange_", x, num_local, num_all);
  if (!transport) return;
  const c10::cuda::CUDAGuard guard(x.device());
  if (transport->takes_gpu_memory()) {
    fill_ghosts(*transport, x, num_local);
    return;
  }
  const Tensor host = at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(x.is_cuda()));
  host.narrow(0, 0, num_local).copy_(x.narrow(0, 0, num_local));
  fill_ghosts(*transport, host, num_local);
  const int64_t num_ghosts = num_all - num_local;
  x.narrow(0, num_local, num_ghosts)
      .copy_(host.narrow(0, num_local, num_ghosts), /*non_blocking=*/true);
}

}    // namespace tdn
