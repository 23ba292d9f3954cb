// Work on a GPU that is recorded once and repeated as a whole: a CUDA graph. A small system then
// does not wait for the launches of its kernels. This header needs no PyTorch.

#ifndef TDN_RECORDING_H
#define TDN_RECORDING_H

#include "exchange/exchange.h"    // TDN_API

#include <functional>
#include <memory>

namespace tdn {

struct TDN_API Recording {
  virtual ~Recording() = default;

  // Do everything again, in PyTorch's current stream and in the same memory.
  virtual void replay() = 0;
};

// What `work` does in PyTorch's current stream, which must not be the default one. It is not done
// yet. Work that waits for the GPU cannot be recorded: std::exception. So it is in a library without
// CUDA.
TDN_API std::unique_ptr<Recording> record(const std::function<void()> &work);

}    // namespace tdn

#endif
