// Transport of ghost atoms' rows between processes, set by the molecular dynamics code.
// This header needs no PyTorch.

#ifndef TDN_EXCHANGE_H
#define TDN_EXCHANGE_H

#include <cstdint>

#define TDN_API __attribute__((visibility("default")))

namespace tdn {

// Rows are contiguous: `x_all` has num_all rows of `width` numbers, double if `is_double`, else
// float, in host memory unless the transport takes others. Both functions are collective and are
// called also for zero rows, on the thread that runs the forward or backward pass. They may throw
// std::exception.
struct TDN_API Exchange {
  virtual ~Exchange() = default;

  // Rows [0, num_local) are filled; fill rows [num_local, num_all) from their owners.
  virtual void forward(void *x_all, int64_t num_local, int64_t num_all, int64_t width,
                       bool is_double) = 0;

  // Add rows [num_local, num_all) to the rows of their owners.
  virtual void reverse(void *x_all, int64_t num_local, int64_t num_all, int64_t width,
                       bool is_double) = 0;

  // Whether `forward` also takes rows in the memory of a GPU, in the order of PyTorch's current
  // stream. Others get a copy in host memory.
  virtual bool takes_gpu_memory() const { return false; }
};

// One transport per process; nullptr for none. The caller keeps ownership.
TDN_API void set_exchange(Exchange *exchange);
TDN_API Exchange *get_exchange();

}    // namespace tdn

#endif
