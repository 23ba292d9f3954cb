// SPDX-License-Identifier: MIT

/* PyTorch's kernels in the order of those of the caller on a GPU. */

#ifndef TDN_STREAM_SCOPE_H
#define TDN_STREAM_SCOPE_H

#include <memory>

namespace tdn {

/// PyTorch works in a cudaStream_t of the caller, on a GPU of this index, until the scope ends.
class StreamScope {
 public:
  StreamScope(void *stream, int gpu);
  ~StreamScope();

 private:
  struct Guard;
  std::unique_ptr<Guard> guard;
};

}    // namespace tdn

#endif
