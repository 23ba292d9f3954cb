// Convolutions for inference: from edge vectors and node features to messages, nothing of the size
// edges x channels in between. Radial weights come from tables of polynomials.
//
//   density:      A[i,lm,c] = sum_j Y_lm(r_ij) w_l,c(r_ij)
//   convolution:  m[i,k,c] = sum_r output[k,r] sum_j (sum_l b_l,r(r_ij) w_l,c(r_ij)) u[j,r,c]
//                 with u[j,r,c] = sum_k input1[k,r] x[j,k,c], b_l,r = sum_m input2[(l,m),r] Y_lm
//
// Tables are [S, S, K, C / 16 rounded up, L, order + 1, 16]: for center and neighbor species and
// each of K intervals of x = K (1 + stretch) y / (y + stretch) with y = r / r_max, polynomials in
// s = 2 (x - floor(x)) - 1, lowest power first. Weights are zero from r_max on. Edge vectors are float64 [E, 3]; x, the tables and the
// factors share one type.

#ifndef TDN_CONVOLUTION_H
#define TDN_CONVOLUTION_H

#include "cp_message/cp_message.h"

namespace tdn {

#define TDN_CONVOLUTION_PARAMETERS                                                               \
  const Tensor &x, const Tensor &edge_vec, const Tensor &species, const Tensor &table,           \
      double r_max, double stretch, const Tensor &input1, const Tensor &input2,                  \
      const Tensor &output,                                                                      \
      TDN_EDGE_PARAMETERS
#define TDN_CONVOLUTION_ARGUMENTS                                                                \
  x, edge_vec, species, table, r_max, stretch, input1, input2, output, TDN_EDGE_ARGUMENTS
#define TDN_DENSITY_PARAMETERS                                                                   \
  const Tensor &edge_vec, const Tensor &species, const Tensor &table, double r_max,              \
      double stretch, int64_t num_channels, TDN_EDGE_PARAMETERS
#define TDN_DENSITY_ARGUMENTS edge_vec, species, table, r_max, stretch, num_channels, TDN_EDGE_ARGUMENTS

Tensor convolution_cpu(TDN_CONVOLUTION_PARAMETERS);
// (gradient of x, or empty [0] where not needed; gradient of edge_vec)
std::tuple<Tensor, Tensor> convolution_adjoint_cpu(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                   bool need_x);
Tensor density_cpu(TDN_DENSITY_PARAMETERS);
Tensor density_adjoint_cpu(const Tensor &g, TDN_DENSITY_PARAMETERS);

// Tensor operations, differentiable: what devices without a kernel of their own use.
Tensor convolution_tensor(TDN_CONVOLUTION_PARAMETERS);
Tensor density_tensor(TDN_DENSITY_PARAMETERS);

Tensor convolution_meta(TDN_CONVOLUTION_PARAMETERS);
std::tuple<Tensor, Tensor> convolution_adjoint_meta(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                    bool need_x);
Tensor density_meta(TDN_DENSITY_PARAMETERS);
Tensor density_adjoint_meta(const Tensor &g, TDN_DENSITY_PARAMETERS);

// First derivatives with respect to x and edge_vec; the rest is constant.
Tensor convolution_autograd(TDN_CONVOLUTION_PARAMETERS);
Tensor density_autograd(TDN_DENSITY_PARAMETERS);

// Shapes, types and devices; errors are ValueErrors that name the operator.
void check_convolution(TDN_CONVOLUTION_PARAMETERS);
void check_density(TDN_DENSITY_PARAMETERS);

// On a GPU, in libraries that are built with CUDA.
Tensor convolution_cuda(TDN_CONVOLUTION_PARAMETERS);
std::tuple<Tensor, Tensor> convolution_adjoint_cuda(const Tensor &g, TDN_CONVOLUTION_PARAMETERS,
                                                    bool need_x);
Tensor density_cuda(TDN_DENSITY_PARAMETERS);
Tensor density_adjoint_cuda(const Tensor &g, TDN_DENSITY_PARAMETERS);

}    // namespace tdn

#endif
