// A transport within one process, for tests: each ghost row is a copy of a local row.

#include "exchange/exchange.h"

#include <pthread.h>

#include <stdexcept>
#include <vector>

namespace {

struct Loopback : tdn::Exchange {
  std::vector<int64_t> owners;
  std::vector<int64_t> log;    // per call: direction (+1, -1), num_local, num_all, width, is_double
  uint64_t thread = 0;
  bool fail = false, takes_gpu = false;
  void *rows = nullptr;    // of the last call

  bool takes_gpu_memory() const override { return takes_gpu; }

  void forward(void *x, int64_t num_local, int64_t num_all, int64_t width,
               bool is_double) override
  {
    record(1, num_local, num_all, width, is_double);
    rows = x;
    if (is_double)
      copy(static_cast<double *>(x), num_local, width);
    else
      copy(static_cast<float *>(x), num_local, width);
  }

  void reverse(void *x, int64_t num_local, int64_t num_all, int64_t width,
               bool is_double) override
  {
    record(-1, num_local, num_all, width, is_double);
    if (is_double)
      add(static_cast<double *>(x), num_local, width);
    else
      add(static_cast<float *>(x), num_local, width);
  }

  void record(int64_t direction, int64_t num_local, int64_t num_all, int64_t width, bool is_double)
  {
    if (fail) throw std::runtime_error("transport lost");
    log.insert(log.end(), {direction, num_local, num_all, width, is_double ? 1 : 0});
    thread = static_cast<uint64_t>(pthread_self());
  }

  template <typename T> void copy(T *x, int64_t num_local, int64_t width)
  {
    for (size_t k = 0; k < owners.size(); ++k)
      for (int64_t c = 0; c < width; ++c)
        x[(num_local + k) * width + c] = x[owners[k] * width + c];
  }

  template <typename T> void add(T *x, int64_t num_local, int64_t width)
  {
    for (size_t k = 0; k < owners.size(); ++k)
      for (int64_t c = 0; c < width; ++c)
        x[owners[k] * width + c] += x[(num_local + k) * width + c];
  }
};

Loopback loopback;

}    // namespace

extern "C" {

void loopback_install(const int64_t *owners, int64_t count)
{
  loopback = Loopback();
  loopback.owners.assign(owners, owners + count);
  tdn::set_exchange(&loopback);
}

void loopback_remove() { tdn::set_exchange(nullptr); }

int loopback_is_installed() { return tdn::get_exchange() == &loopback; }

void loopback_fail() { loopback.fail = true; }

void loopback_take_gpu_memory() { loopback.takes_gpu = true; }

uint64_t loopback_rows() { return reinterpret_cast<uint64_t>(loopback.rows); }

uint64_t loopback_thread() { return loopback.thread; }

int64_t loopback_log(int64_t *out, int64_t room)
{
  for (size_t k = 0; k < loopback.log.size() && static_cast<int64_t>(k) < room; ++k)
    out[k] = loopback.log[k];
  return static_cast<int64_t>(loopback.log.size());
}
}
