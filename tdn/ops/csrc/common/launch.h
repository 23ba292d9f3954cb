// Launches of kernels, on a GPU or, for tests without one, as loops on the host.
//
// Only .cu files include this. nvcc makes GPU code of them. A plain C++ compiler makes host code of
// the same kernels: it runs the threads one after the other (those of a block in any order from
// barrier to barrier, see host_threads.h), and the lanes of a group in step, so that indices, tails,
// grid strides and the order of every sum are those of the GPU.

#ifndef TDN_CUDA_LAUNCH_H
#define TDN_CUDA_LAUNCH_H

#include "queue.h"

#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime_api.h>
// Part of the device runtime; the headers declare it only where NDEBUG is not defined.
extern "C" __host__ __device__ void __assert_fail(const char *, const char *, unsigned int,
                                                  const char *) noexcept(true);
#define TDN_DEVICE __device__ __forceinline__
#define TDN_UNROLL _Pragma("unroll")
#define TDN_UNROLL_TWICE _Pragma("unroll 2")
#define TDN_NO_UNROLL _Pragma("unroll 1")
// As PyTorch's device asserts: ends the kernel, and the next call that waits for it says why.
#define TDN_DEVICE_CHECK(condition, message)                                                     \
  do {                                                                                           \
    if (!(condition)) __assert_fail(message, __FILE__, __LINE__, "tdn");                         \
  } while (false)
#else
#include "host_threads.h"

#include <cstring>
#include <stdexcept>
#include <vector>
#define TDN_DEVICE inline
#define TDN_UNROLL
#define TDN_UNROLL_TWICE
#define TDN_NO_UNROLL
#define TDN_DEVICE_CHECK(condition, message)                                                     \
  do {                                                                                           \
    if (!(condition)) throw std::out_of_range(message);                                          \
  } while (false)
#endif

namespace tdn::cuda {

constexpr int block_threads = 128;
constexpr int warp_threads = 32;

// N consecutive numbers, read and written by one instruction.
template <typename T, int N> struct alignas(N * sizeof(T)) Pack {
  T value[N];
};

template <typename T, int N> TDN_DEVICE Pack<T, N> load(const T *p)
{
  return *reinterpret_cast<const Pack<T, N> *>(p);
}

template <typename T, int N> TDN_DEVICE void store(T *p, const Pack<T, N> &pack)
{
  *reinterpret_cast<Pack<T, N> *>(p) = pack;
}

// Numbers that `load` and `store` move at once: 16 bytes where the rows allow it, else one.
template <typename T> constexpr int widest = 16 / sizeof(T);

// Whether rows of this length can be read in packs of N; null counts as aligned.
template <typename T, int N = widest<T>, typename... Pointers>
bool packs(int64_t row, Pointers... pointers)
{
  constexpr std::uintptr_t bytes = N * sizeof(T);
  return row % N == 0 && (... && (reinterpret_cast<std::uintptr_t>(pointers) % bytes == 0));
}

// A variable of each of N threads that work together.
template <typename T, int N> struct PerThread {
#ifdef __CUDACC__
  T mine;
  TDN_DEVICE T &operator[](int) { return mine; }
#else
  T all[N];
  T &operator[](int thread) { return all[thread]; }
#endif
};

constexpr int group_lanes = 8;
template <typename T> using PerLane = PerThread<T, group_lanes>;

// A group of neighboring threads of one warp that work on one item. Code that differs between the
// lanes goes through each(); what must not, such as sum(), stands between two of them. All groups
// of a warp walk together; where there are fewer items than groups, those left over repeat an item
// and must not write (active is false).
struct Lanes {
  static constexpr int count = group_lanes;
  bool active;

#ifdef __CUDACC__
  template <typename F> TDN_DEVICE void each(F function) const { function(threadIdx.x % count); }

  // Replaces x by its sum over the lanes, in a fixed order.
  template <typename T> TDN_DEVICE void sum(PerLane<T> &x) const
  {
    TDN_UNROLL
    for (int step = count / 2; step > 0; step /= 2)
      x.mine += __shfl_xor_sync(0xffffffffu, x.mine, step);
  }
#else
  template <typename F> void each(F function) const
  {
    for (int lane = 0; lane < count; ++lane) function(lane);
  }

  template <typename T> void sum(PerLane<T> &x) const
  {
    for (int step = count / 2; step > 0; step /= 2) {
      const PerLane<T> before = x;
      for (int lane = 0; lane < count; ++lane) x.all[lane] += before.all[lane ^ step];
    }
  }
#endif
};

// A block of threads with memory in common. Code of one thread goes through each(); between two of
// them everything may be exchanged, after sync().
struct Block {
  static constexpr int max_threads = 256;
  static constexpr int max_shared = 48 * 1024;    // bytes, of any GPU
  int threads;
  char *shared;

#ifdef __CUDACC__
  template <typename F> TDN_DEVICE void each(F function) const { function(threadIdx.x); }
  TDN_DEVICE void sync() const { __syncthreads(); }
#else
  int thread;    // the one that runs
  template <typename F> void each(F function) const { function(thread); }
  void sync() const { HostThreads::wait(); }
#endif
};

// The most threads of a block of this kernel, and how many blocks of them share a multiprocessor at
// least: the compiler then keeps to as many registers as that leaves.
template <typename Kernel> struct BlockLimits {
  static constexpr int threads = Block::max_threads, blocks = 1;
};

// Blocks of a launch; the threads of a smaller grid take several items each.
#ifdef __CUDACC__
constexpr int64_t max_blocks = INT32_MAX;
#else
inline int64_t max_blocks = INT32_MAX;    // tests lower it
#endif

inline int64_t blocks_for(int64_t threads)
{
  const int64_t blocks = (threads + block_threads - 1) / block_threads;
  return blocks < max_blocks ? blocks : max_blocks;
}

#ifdef __CUDACC__

template <typename Kernel>
__global__ void __launch_bounds__(block_threads, 1) run_threads(Kernel kernel, int64_t total)
{
  const int64_t stride = int64_t(gridDim.x) * block_threads;
  for (int64_t k = int64_t(blockIdx.x) * block_threads + threadIdx.x; k < total; k += stride)
    kernel(k);
}

template <typename Kernel>
__global__ void __launch_bounds__(block_threads) run_groups(Kernel kernel, int64_t total)
{
  const int64_t stride = int64_t(gridDim.x) * block_threads / Lanes::count;
  const int group = threadIdx.x % warp_threads / Lanes::count;
  int64_t first = (int64_t(blockIdx.x) * block_threads + threadIdx.x) / Lanes::count - group;
  for (; first < total; first += stride)    // the same in all threads of a warp
    kernel(first + group < total ? first + group : total - 1, Lanes{first + group < total});
}

template <typename Kernel>
__global__ void __launch_bounds__(BlockLimits<Kernel>::threads, BlockLimits<Kernel>::blocks)
    run_blocks(Kernel kernel, int64_t total)
{
  extern __shared__ __align__(16) char shared[];
  const Block block{static_cast<int>(blockDim.x), shared};
  for (int64_t k = blockIdx.x; k < total; k += gridDim.x) kernel(k, block);
}

#endif

// This library has a CUDA runtime of its own, linked statically so that a program without Python
// need not find one. It must be told the device, as PyTorch's has been.

// kernel(k) for k in 0..total, a thread each. Returns a cudaError_t.
template <typename Kernel>
int launch_threads(const Kernel &kernel, int64_t total, [[maybe_unused]] const Queue &queue)
{
  if (total <= 0) return 0;
#ifdef __CUDACC__
  if (const cudaError_t error = cudaSetDevice(queue.device)) return error;
  run_threads<<<static_cast<unsigned>(blocks_for(total)), block_threads, 0,
                static_cast<cudaStream_t>(queue.stream)>>>(kernel, total);
  return cudaGetLastError();
#else
  const int64_t stride = blocks_for(total) * block_threads;
  for (int64_t first = 0; first < stride; ++first)
    for (int64_t k = first; k < total; k += stride) kernel(k);
  return 0;
#endif
}

// kernel(k, lanes) for k in 0..total, a group of lanes each. Returns a cudaError_t.
template <typename Kernel>
int launch_groups(const Kernel &kernel, int64_t total, [[maybe_unused]] const Queue &queue)
{
  if (total <= 0) return 0;
#ifdef __CUDACC__
  if (const cudaError_t error = cudaSetDevice(queue.device)) return error;
  run_groups<<<static_cast<unsigned>(blocks_for(total * Lanes::count)), block_threads, 0,
               static_cast<cudaStream_t>(queue.stream)>>>(kernel, total);
  return cudaGetLastError();
#else
  constexpr int64_t groups = warp_threads / Lanes::count;
  const int64_t stride = blocks_for(total * Lanes::count) * block_threads / Lanes::count;
  for (int64_t warp = 0; warp < stride; warp += groups)
    for (int64_t first = warp; first < total; first += stride)
      for (int64_t k = first; k < first + groups; ++k)
        kernel(k < total ? k : total - 1, Lanes{k < total});
  return 0;
#endif
}

// kernel(k, block) for k in 0..total, a block of threads each. Returns a cudaError_t.
template <typename Kernel>
int launch_blocks(const Kernel &kernel, int64_t total, int threads, int shared_bytes,
                  [[maybe_unused]] const Queue &queue)
{
  if (total <= 0) return 0;
#ifdef __CUDACC__
  if (const cudaError_t error = cudaSetDevice(queue.device)) return error;
  const int64_t blocks = total < max_blocks ? total : max_blocks;
  run_blocks<<<static_cast<unsigned>(blocks), threads, shared_bytes,
               static_cast<cudaStream_t>(queue.stream)>>>(kernel, total);
  return cudaGetLastError();
#else
  std::vector<double> shared((shared_bytes + sizeof(double) - 1) / sizeof(double) + 1);
  char *const memory = reinterpret_cast<char *>(shared.data());
  const int64_t stride = total < max_blocks ? total : max_blocks;
  for (int64_t first = 0; first < stride; ++first) {
    std::memset(memory, 0xff, shared_bytes);    // not numbers
    HostThreads::run(threads, [&](int thread) {
      for (int64_t k = first; k < total; k += stride) kernel(k, Block{threads, memory, thread});
    });
  }
  return 0;
#endif
}

}    // namespace tdn::cuda

#endif
