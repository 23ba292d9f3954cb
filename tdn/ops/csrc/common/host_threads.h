// Threads of a block on the host, for tests without a GPU. Included by launch.h alone.
//
// Each thread has a stack of its own and runs until it comes to a barrier or to its end; then the
// next one runs. Their order is drawn anew after every barrier. What threads exchange without a
// barrier between is then written and read in an order that some launch gets wrong, and what was in
// shared memory before is not a number: a missing barrier shows as a wrong result.

#ifndef TDN_CUDA_HOST_THREADS_H
#define TDN_CUDA_HOST_THREADS_H

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

namespace tdn::cuda {

class HostThreads {
 public:
  // Runs body(thread) for all threads of one block. Throws what a thread throws.
  static void run(int threads, const std::function<void(int)> &body)
  {
    HostThreads block(threads, body);
    active = &block;
    block.run_all();
  }

  // A barrier, called by one of the threads.
  static void wait()
  {
    HostThreads &block = *active;
    block.state[block.current] = waiting;
    swapcontext(&block.contexts[block.current], &block.scheduler);
  }

 private:
  static constexpr std::size_t stack_bytes = 256 * 1024;
  enum State { ready, waiting, ended };

  HostThreads(int threads, const std::function<void(int)> &body_) :
      body(body_), contexts(threads), state(threads, ready), order(threads), scheduler(),
      current(0), error()
  {
    std::iota(order.begin(), order.end(), 0);
    while (stacks.size() < contexts.size()) stacks.emplace_back(new char[stack_bytes]);
    for (int k = 0; k < threads; ++k) {
      getcontext(&contexts[k]);
      contexts[k].uc_stack.ss_sp = stacks[k].get();
      contexts[k].uc_stack.ss_size = stack_bytes;
      contexts[k].uc_link = &scheduler;
      makecontext(&contexts[k], &HostThreads::start, 0);
    }
  }

  static void start()
  {
    HostThreads &block = *active;
    const int thread = block.current;
    try {
      block.body(thread);
    } catch (...) {
      block.error = std::current_exception();
    }
    block.state[thread] = ended;
  }

  // From barrier to barrier, until all have ended.
  void run_all()
  {
    int left = static_cast<int>(contexts.size());
    while (left > 0) {
      std::shuffle(order.begin(), order.end(), generator);
      for (const int thread : order) {
        current = thread;
        swapcontext(&scheduler, &contexts[thread]);
        if (error) std::rethrow_exception(error);
      }
      left = static_cast<int>(std::count(state.begin(), state.end(), waiting));
      if (left > 0 && left < static_cast<int>(contexts.size()))
        throw std::logic_error("some threads of a block wait where others have ended");
      std::fill(state.begin(), state.end(), ready);
    }
  }

  const std::function<void(int)> &body;
  std::vector<ucontext_t> contexts;
  std::vector<State> state;
  std::vector<int> order;
  ucontext_t scheduler;
  int current;
  std::exception_ptr error;

  static inline HostThreads *active = nullptr;
  static inline std::vector<std::unique_ptr<char[]>> stacks;
  static inline std::mt19937 generator{1};
};

}    // namespace tdn::cuda

#endif
