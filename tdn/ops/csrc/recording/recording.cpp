#include "recording.h"

#include <stdexcept>

#ifdef TDN_CUDA
#include <ATen/cuda/CUDAGraph.h>
#endif

namespace tdn {

#ifdef TDN_CUDA

namespace {

class CudaGraphRecording : public Recording {
 public:
  explicit CudaGraphRecording(const std::function<void()> &work)
  {
    graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      try {
        graph.capture_end();
      } catch (const std::exception &) {    // of what is recorded only in part
      }
      throw;
    }
    graph.capture_end();
  }

  void replay() override { graph.replay(); }

 private:
  at::cuda::CUDAGraph graph;
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
