// The kernels meant for a GPU, compiled for the host, behind functions that ctypes can call.

#include "convolution/convolution_cuda_kernels.cu"
#include "cp_message/cp_message_cuda_kernels.cu"
#include "gate/gate_cuda_kernels.cu"
#include "node_product/node_product_cuda_kernels.cu"
#include "node_product/node_product_cuda_weights.cu"

#include <vector>

namespace {

using tdn::EdgeArguments;
using tdn::GatherArguments;
using tdn::cuda::Queue;
using tdn::cuda::Sizes;

// Pointers: edge_vec, species, center, neighbor, ptr, order, table, harmonics, u, g, out, grad_vec.
template <typename T>
tdn::cuda::EdgeConvolution<T> convolution_of(const int64_t *size, void *const *p, double r_max,
                                             double stretch)
{
  const auto numbers = [p](int k) { return static_cast<const T *>(p[k]); };
  const auto indices = [p](int k) { return static_cast<const int64_t *>(p[k]); };
  tdn::cuda::EdgeConvolution<T> a{};
  a.l_max = size[0];
  a.rank = size[1];
  a.channels = size[2];
  a.num_centers = size[3];
  a.num_nodes = size[4];
  a.num_edges = size[5];
  a.edges.table.num_species = size[6];
  a.edges.table.intervals = size[7];
  a.edges.table.degrees = size[8];
  a.edges.table.order = size[9];
  a.edges.table.r_max = r_max;
  a.edges.table.stretch = stretch;
  a.edges.vec = static_cast<const double *>(p[0]);
  a.edges.species = indices(1);
  a.edges.center = indices(2);
  a.edges.neighbor = indices(3);
  a.edges.ptr = indices(4);
  a.edges.order = indices(5);
  a.edges.table.values = numbers(6);
  a.harmonics = numbers(7);
  a.u = numbers(8);
  a.g = numbers(9);
  a.out = static_cast<T *>(p[10]);
  a.grad_vec = static_cast<double *>(p[11]);
  return a;
}

// size: N, L, L_out, R, O, S, C. Pointers: m, species, linear, left, right, weight, input1, input2,
// output, g, v, out, along, and where gradients of weights are wanted linear, left, right, weight.
template <typename T>
int node_product_of(tdn::cuda::NodePass pass, const int64_t *size, void *const *p)
{
  const auto numbers = [p](int k) { return static_cast<T *>(p[k]); };
  const auto *species = static_cast<const int64_t *>(p[1]);
  const int64_t weights = tdn::cuda::node_weights(size[1], size[2], size[4]);
  tdn::cuda::NodeProduct<T> a{
      size[0],    size[1],    size[2],    size[3],    size[4],    size[5],     size[6],
      weights,    numbers(0), species,    numbers(2), numbers(3), numbers(4),  numbers(5),
      numbers(6), numbers(7), numbers(8), numbers(9), numbers(10), numbers(11), numbers(12),
      nullptr,    nullptr};
  // not numbers, so that what is read before it is written shows
  const auto memory = [](int64_t count) { return std::vector<T>(count + 1, T(0) / T(0)); };
  std::vector<T> scratch = memory(size[0] * node_product_scratch(a, pass) * size[6]);
  std::vector<T> terms = memory(size[0] * weights * size[6]);
  const int64_t chunks = tdn::cuda::node_chunks(size[0]);
  std::vector<T> partial = memory(chunks * size[5] * weights * size[6]);
  a.scratch = scratch.data();
  a.terms = p[13] ? terms.data() : nullptr;
  if (const int error = launch_node_product(a, pass, Queue{0, nullptr})) return error;
  if (!p[13]) return 0;
  const tdn::cuda::NodeWeights<T> sums{size[0],     size[1],        size[2],     size[4],
                                       size[5],     size[6],        weights,     species,
                                       a.terms,     partial.data(), numbers(13), numbers(14),
                                       numbers(15), numbers(16)};
  return launch_node_weights(sums, Queue{0, nullptr});
}

// size: N, L, C. Pointers: x, z, g, v, h, out, grad_z, grad_g, grad_h.
template <typename T>
int gate_of(tdn::cuda::GatePass pass, const int64_t *size, double scale, void *const *p)
{
  const auto numbers = [p](int k) { return static_cast<T *>(p[k]); };
  const tdn::cuda::GateArguments<T> a{size[0],    size[1],    size[2],    scale,      numbers(0),
                                      numbers(1), numbers(2), numbers(3), numbers(4), numbers(5),
                                      numbers(6), numbers(7), numbers(8)};
  return launch_gate(a, pass, Queue{0, nullptr});
}

// Turns the numbers of a block around through shared memory, with the barrier or without.
struct Turn {
  const int64_t *from;
  int64_t *to;
  bool barrier;

  void operator()(int64_t tile, const tdn::cuda::Block &block) const
  {
    auto *const shared = reinterpret_cast<int64_t *>(block.shared);
    const int64_t start = tile * block.threads;
    block.sync();    // the last tile has been read
    block.each([&](int thread) { shared[thread] = from[start + thread]; });
    if (barrier) block.sync();
    block.each([&](int thread) { to[start + thread] = shared[block.threads - 1 - thread]; });
  }
};

// 0, or 1 where a kernel found an index out of range.
template <typename Launch> int checked(Launch launch)
{
  try {
    return launch();
  } catch (const std::out_of_range &) {
    return 1;
  }
}

}    // namespace

#define TDN_EXPORT(T)                                                                            \
  extern "C" int gather_##T(const GatherArguments<T> *arguments, const Sizes *sizes)             \
  {                                                                                              \
    return checked([&] { return launch_gather(*arguments, *sizes, Queue{0, nullptr}); });        \
  }                                                                                              \
  extern "C" int edges_##T(const EdgeArguments<T> *arguments, const Sizes *sizes)                \
  {                                                                                              \
    return checked([&] { return launch_edges(*arguments, *sizes, Queue{0, nullptr}); });         \
  }                                                                                              \
  extern "C" int convolution_##T(const int64_t *size, void *const *pointers, double r_max,       \
                                 double stretch, bool adjoint)                                   \
  {                                                                                              \
    const auto a = convolution_of<T>(size, pointers, r_max, stretch);                            \
    return checked([&] {                                                                         \
      return adjoint ? launch_convolution_adjoint(a, Queue{0, nullptr})                          \
                     : launch_convolution(a, Queue{0, nullptr});                                 \
    });                                                                                          \
  }                                                                                              \
  extern "C" int node_product_##T(int pass, const int64_t *size, void *const *pointers)          \
  {                                                                                              \
    return checked([&] {                                                                         \
      return node_product_of<T>(static_cast<tdn::cuda::NodePass>(pass), size, pointers);         \
    });                                                                                          \
  }                                                                                              \
  extern "C" int gate_##T(int pass, const int64_t *size, double scale, void *const *pointers)    \
  {                                                                                              \
    return gate_of<T>(static_cast<tdn::cuda::GatePass>(pass), size, scale, pointers);            \
  }

TDN_EXPORT(float)
TDN_EXPORT(double)

extern "C" void turn_blocks(const int64_t *from, int64_t *to, int64_t blocks, int threads,
                            bool barrier)
{
  launch_blocks(Turn{from, to, barrier}, blocks, threads, threads * 8, Queue{0, nullptr});
}

extern "C" void set_max_blocks(int64_t blocks) { tdn::cuda::max_blocks = blocks; }
