#include "recording.h"

#include <stdexcept>

#ifdef TDN_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace tdn {

#ifdef TDN_CUDA

namespace {

class CudaGraphRecording : public Recording {
 public:
  explicit CudaGraphRecording(const std::function<void()> &work) :
      pool(at::cuda::graph_pool_handle())
  {
    graph.capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      work();
      graph.capture_end();
    } catch (...) {
      end_allocations();
      throw;
    }
  }

  void replay() override { graph.replay(); }

 private:
  c10::MempoolId_t pool;
  at::cuda::CUDAGraph graph;

  // PyTorch leaves its allocator in the state of a recording if the end of that fails, as it does
  // after work that cannot be recorded.
  void end_allocations() noexcept
  {
    try {
      graph.capture_end();
      return;    // only what was recorded last is missing
    } catch (const std::exception &) {
    }
    try {
      const c10::DeviceIndex device = c10::cuda::current_device();
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device, pool);
      c10::cuda::CUDACachingAllocator::releasePool(device, pool);
    } catch (const std::exception &) {    // it had ended
    }
  }
};

}    // namespace

std::unique_ptr<Recording> record(const std::function<void()> &work)
{
  return std::make_unique<CudaGraphRecording>(work);
}

#else

std::unique_ptr<Recording> record(const std::function<void()> &)
{
  throw std::logic_error("the operators were built without CUDA");
}

#endif

}    // namespace tdn
