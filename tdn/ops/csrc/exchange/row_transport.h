// Rows of tensors for the transport of exchange.h, checked; on CPU and GPU.

#ifndef TDN_ROW_TRANSPORT_H
#define TDN_ROW_TRANSPORT_H

#include "exchange.h"

#include <ATen/core/Tensor.h>

namespace tdn {

// The transport, if one is set and rows of x can go through it; null without one, where ghosts are
// refused.
inline Exchange *transport_for(const char *name, const at::Tensor &x, int64_t num_local,
                               int64_t num_all)
{
  TORCH_CHECK_VALUE(num_local >= 0 && num_local <= num_all, name, ": found ", num_local,
                    " local atoms of ", num_all, " atoms in all");
  Exchange *const transport = get_exchange();
  if (!transport) {
    TORCH_CHECK_VALUE(num_local == num_all, name, ": found ", num_all - num_local,
                      " ghost atoms, but no transport between processes is set");
    return nullptr;
  }
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    ": x must be float32 or float64, found ", x.scalar_type());
  return transport;
}

// Numbers in a row, also where there are no rows.
inline int64_t row_width(const at::Tensor &x)
{
  int64_t width = 1;
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  return width;
}

// Fill the rows of ghosts, of rows that the transport can reach.
inline void fill_ghosts(Exchange &transport, const at::Tensor &rows, int64_t num_local)
{
  transport.forward(rows.mutable_data_ptr(), num_local, rows.size(0), row_width(rows),
                    rows.scalar_type() == at::kDouble);
}

}    // namespace tdn

#endif
