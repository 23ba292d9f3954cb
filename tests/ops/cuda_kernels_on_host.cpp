// The kernels meant for a GPU, compiled for the host, behind functions that ctypes can call.

#include "cuda/convolution_kernels.cu"
#include "cuda/cp_message_kernels.cu"

namespace {

using tdn::EdgeArguments;
using tdn::GatherArguments;
using tdn::cuda::Queue;
using tdn::cuda::Sizes;

// Pointers: edge_vec, species, centre, neighbour, ptr, order, table, harmonics, u, g, out, grad_vec.
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
  a.num_centres = size[3];
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
  a.edges.centre = indices(2);
  a.edges.neighbour = indices(3);
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
  }

TDN_EXPORT(float)
TDN_EXPORT(double)

extern "C" void set_max_blocks(int64_t blocks) { tdn::cuda::max_blocks = blocks; }
