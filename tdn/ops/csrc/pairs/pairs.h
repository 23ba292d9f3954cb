// The layers of a convolution network from positions to forces, each with its adjoint.
//
// A list of pairs is six tensors: positions float64 [rows, 3]; center int32 [n], the row of each
// center; ptr int64 [n + 1] and other int32 [pairs], the rows of the other atoms in CSR form, with
// both directions of every pair; node int32 [rows], -1 for rows that take no part; species int64
// [n_all]. Nodes [0, n) are the centers, the others ghosts of other processes. Pairs beyond the
// cutoff count for nothing, so that a list with a skin stays valid for some steps.
//
// Buffers are the caller's. Nothing of the size of the pairs is stored: what a pair needs is
// computed from the positions wherever it is needed. In the adjoint of a layer a center reads the
// gradients of its neighbors' messages, so those of ghosts come by the same exchange as features,
// and forces on centers are complete.

#ifndef TDN_PAIRS_H
#define TDN_PAIRS_H

#include <ATen/core/Tensor.h>
#include <ATen/core/List.h>

#include <tuple>
#include <vector>

namespace tdn {

using at::Tensor;

#define TDN_PAIR_PARAMETERS                                                                      \
  const Tensor &positions, const Tensor &center, const Tensor &ptr, const Tensor &other,         \
      const Tensor &node, const Tensor &species
#define TDN_PAIR_ARGUMENTS positions, center, ptr, other, node, species

// All pairs of the rows [0, num_centers) with any other row, not farther apart than the distance:
// ptr and other of a list as above, and reached uint8 [rows], 1 for the rows that are in a pair. The
// pairs of a center always come in the same order.
std::tuple<Tensor, Tensor, Tensor> find_pairs_cpu(const Tensor &positions, int64_t num_centers,
                                                  double distance);

// What a layer is made of, for all operators below:
// edge: the radial table; in later layers also input1, input2, output, the factors.
// weights: see NodeWeight in node_tile.h. numbers: r_max, stretch, the factors of gate (0: none)
// and readout.

// Sums of forces and virials of one evaluation, one for each thread, all zero: force [K, n, 3],
// virial [K, 9], and with `per_atom` atom_virial and centroid [K, n, 9], else [K, 0, 9]; see
// PairSums. Checks the indices of the list.
std::vector<Tensor> pair_sums_cpu(TDN_PAIR_PARAMETERS, bool per_atom);

// Numbers that a node has in rank space.
int64_t pair_row_size_cpu(const Tensor &like, int64_t rank, int64_t channels);

// Rows [first, ...) of x [n_all, D, C] to rank space with matrix [D, R]: out [n_all, row size].
void pair_project_cpu(const Tensor &x, const Tensor &matrix, int64_t first, const Tensor &out);

// A layer but the last. u: features before it in rank space (later layers); z_before: those of the
// layer before this one in front of its gate. Writes m [n, D, C] and z [n, D, C], adds to energy
// [n], writes the features for the next layer: u_next [n_all, row size] with the factors
// next_input1, and features [n_all, D, C] unless empty; both for centers.
void pair_forward_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                      const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &u,
                      const Tensor &z_before, const Tensor &next_input1, const Tensor &m,
                      const Tensor &z, const Tensor &energy, const Tensor &u_next,
                      const Tensor &features);

// The last layer and its adjoint, at the nodes; with one layer also its edges. scale: float64 [S],
// factors of the energy. Writes kept [n, 1, C], the gradient by the residual, and that of the
// messages: ranked [n_all, row size], and gradients [n_all, D, C] unless empty; both for centers.
void pair_last_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                   const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &scale,
                   const Tensor &u, const Tensor &z_before, const Tensor &energy,
                   const Tensor &kept, const Tensor &ranked, const Tensor &gradients,
                   at::TensorList sums);

// The adjoint of the edges of a layer, and that of the layer below it at the nodes; of the first
// layer also its edges. edge and below: of these layers; weights, m and z: of the one below. Reads
// kept and writes kept_below likewise.
void pair_backward_cpu(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList below,
                       at::TensorList weights, at::ArrayRef<double> numbers, const Tensor &scale,
                       const Tensor &u, const Tensor &ranked, const Tensor &m, const Tensor &z,
                       const Tensor &kept, const Tensor &kept_below, const Tensor &ranked_below,
                       const Tensor &gradients, at::TensorList sums);

// What ghosts as centers of the first layer add to forces: gradients [n_all, D, C].
void pair_density_ghosts_cpu(TDN_PAIR_PARAMETERS, const Tensor &table,
                             at::ArrayRef<double> numbers, const Tensor &gradients,
                             at::TensorList sums);

// The repulsion of nuclei (tdn/network/zbl.py): number [S], pair_cutoff [S, S].
void pair_zbl_cpu(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                  const Tensor &energy, at::TensorList sums);

// On a GPU, in libraries that are built with CUDA. Rows in rank space are [R, C]; each center has a
// virial of its own, [n, 9], in the place of those of threads.
std::tuple<Tensor, Tensor, Tensor> find_pairs_cuda(const Tensor &positions, int64_t num_centers,
                                                   double distance);
std::vector<Tensor> pair_sums_cuda(TDN_PAIR_PARAMETERS, bool per_atom);
int64_t pair_row_size_cuda(const Tensor &like, int64_t rank, int64_t channels);
void pair_project_cuda(const Tensor &x, const Tensor &matrix, int64_t first, const Tensor &out);
void pair_forward_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                       const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &u,
                       const Tensor &z_before, const Tensor &next_input1, const Tensor &m,
                       const Tensor &z, const Tensor &energy, const Tensor &u_next,
                       const Tensor &features);
void pair_last_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList weights,
                    const Tensor &gate_before, at::ArrayRef<double> numbers, const Tensor &scale,
                    const Tensor &u, const Tensor &z_before, const Tensor &energy,
                    const Tensor &kept, const Tensor &ranked, const Tensor &gradients,
                    at::TensorList sums);
void pair_backward_cuda(TDN_PAIR_PARAMETERS, at::TensorList edge, at::TensorList below,
                        at::TensorList weights, at::ArrayRef<double> numbers, const Tensor &scale,
                        const Tensor &u, const Tensor &ranked, const Tensor &m, const Tensor &z,
                        const Tensor &kept, const Tensor &kept_below, const Tensor &ranked_below,
                        const Tensor &gradients, at::TensorList sums);
void pair_density_ghosts_cuda(TDN_PAIR_PARAMETERS, const Tensor &table,
                              at::ArrayRef<double> numbers, const Tensor &gradients,
                              at::TensorList sums);
void pair_zbl_cuda(TDN_PAIR_PARAMETERS, const Tensor &number, const Tensor &pair_cutoff,
                   const Tensor &energy, at::TensorList sums);

}    // namespace tdn

#endif
