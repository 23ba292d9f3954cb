#include "common/launch.h"
#include "node_product_cuda_kernels.h"

// Gradients of the weights of the node product: what the nodes of a species contribute, summed in
// two steps. First a thread adds up one weight over a chunk of nodes, apart for each species; then
// one adds up the chunks. Both go in the order of the nodes.

namespace tdn::cuda {
namespace {

template <typename T> struct SumNodes {
  NodeWeights<T> a;
  int64_t row, chunks;    // numbers per node

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t k = thread % row, chunk = thread / row;
    T *const to = a.partial + chunk * a.num_species * row + k;
    for (int64_t s = 0; s < a.num_species; ++s) to[s * row] = 0;
    const int64_t first = a.num_nodes * chunk / chunks;
    const int64_t last = a.num_nodes * (chunk + 1) / chunks;
    TDN_UNROLL_TWICE
    for (int64_t n = first; n < last; ++n) {
      const int64_t species = a.species[n];
      TDN_DEVICE_CHECK(species >= 0 && species < a.num_species,
                       "node_product: species out of range");
      to[species * row] += a.terms[n * row + k];
    }
  }
};

template <typename T> struct SumChunks {
  NodeWeights<T> a;
  int64_t row, chunks;

  TDN_DEVICE void operator()(int64_t thread) const
  {
    const int64_t c = thread % a.channels, species = thread / row;
    T total = 0;
    for (int64_t j = 0; j < chunks; ++j) total += a.partial[j * a.num_species * row + thread];
    const auto store_in = [&](T *grad, int64_t o, int64_t degrees, int64_t l) {
      grad[((o * a.num_species + species) * degrees + l) * a.channels + c] = total;
    };
    int64_t k = thread % row / a.channels;
    if (k < a.degrees_out) return store_in(a.grad_linear, 0, a.degrees_out, k);
    k -= a.degrees_out;
    const int64_t per_order = 2 * a.degrees + a.degrees_out, o = k / per_order;
    k %= per_order;
    if (k < a.degrees) return store_in(a.grad_left, o, a.degrees, k);
    if (k < 2 * a.degrees) return store_in(a.grad_right, o, a.degrees, k - a.degrees);
    store_in(a.grad_weight, o, a.degrees_out, k - 2 * a.degrees);
  }
};

}    // namespace

template <typename T> int launch_node_weights(const NodeWeights<T> &a, const Queue &queue)
{
  const int64_t chunks = node_chunks(a.num_nodes);
  const int64_t row = a.num_weights * a.channels;
  if (const int error = launch_threads(SumNodes<T>{a, row, chunks}, chunks * row, queue))
    return error;
  return launch_threads(SumChunks<T>{a, row, chunks}, a.num_species * row, queue);
}

template int launch_node_weights(const NodeWeights<float> &, const Queue &);
template int launch_node_weights(const NodeWeights<double> &, const Queue &);

}    // namespace tdn::cuda
