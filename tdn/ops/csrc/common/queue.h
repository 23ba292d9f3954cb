#ifndef TDN_CUDA_QUEUE_H
#define TDN_CUDA_QUEUE_H

namespace tdn::cuda {

// Where a kernel is sent: a device, and a cudaStream_t of it.
struct Queue {
  int device;
  void *stream;
};

}    // namespace tdn::cuda

#endif
