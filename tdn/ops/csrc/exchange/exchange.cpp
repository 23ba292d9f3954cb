#include "exchange.h"

#include "exchange_ops.h"
#include "row_transport.h"
#include "common/autograd.h"

#include <ATen/ops/empty.h>

#include <atomic>

namespace tdn {
namespace {

using at::Tensor;

std::atomic<Exchange *> current_exchange{nullptr};

void check_rows(const char *name, const Tensor &x)
{
  TORCH_CHECK_VALUE(x.dim() >= 1, name, ": x must have a row per atom, found a scalar");
}

// A contiguous copy in host memory with `rows` rows, of which the first are those of x.
Tensor host_copy(const Tensor &x, int64_t rows)
{
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = rows;
  Tensor copy = at::empty(shape, x.options().device(at::kCPU));
  copy.narrow(0, 0, x.size(0)).copy_(x);
  return copy;
}

// Rows through a function of the transport; without one, x as it is.
template <typename Direction>
Tensor transported(const char *name, const Tensor &x, int64_t num_local, int64_t num_all,
                   Direction direction)
{
  Exchange *const transport = transport_for(name, x, num_local, num_all);
  if (!transport) return x.clone(at::MemoryFormat::Contiguous);
  Tensor all = host_copy(x, num_all);
  (transport->*direction)(all.mutable_data_ptr(), num_local, num_all, row_width(x),
                         x.scalar_type() == at::kDouble);
  return all;
}

std::vector<c10::SymInt> with_rows(const Tensor &x, const c10::SymInt &rows)
{
  std::vector<c10::SymInt> shape = x.sym_sizes().vec();
  shape[0] = rows;
  return shape;
}

Tensor call(const char *name, const Tensor &x, const c10::SymInt &rows)
{
  return find_operator<Tensor(const Tensor &, c10::SymInt)>(name).call(x, rows);
}

// Each is the adjoint of the other. Gradients are always materialized, so that every process takes
// part in the communication.
template <bool to_ghosts> struct Rows : Function<Rows<to_ghosts>> {
  static constexpr const char *name = to_ghosts ? "tdn::exchange" : "tdn::exchange_reverse";
  static constexpr const char *adjoint = to_ghosts ? "tdn::exchange_reverse" : "tdn::exchange";

  static Tensor forward(AutogradContext *ctx, const Tensor &x, c10::SymInt rows)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->saved_data["rows"] = x.sym_size(0);
    return call(name, x, rows);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return {call(adjoint, gradients[0], ctx->saved_data["rows"].toSymInt()), Tensor()};
  }
};

}    // namespace

void set_exchange(Exchange *exchange) { current_exchange.store(exchange); }

Exchange *get_exchange() { return current_exchange.load(); }

Tensor exchange_rows(const Tensor &x, int64_t num_all)
{
  check_rows("exchange", x);
  return transported("exchange", x, x.size(0), num_all, &Exchange::forward).to(x.device());
}

Tensor exchange_reverse_rows(const Tensor &x, int64_t num_local)
{
  check_rows("exchange_reverse", x);
  const Tensor all =
      transported("exchange_reverse", x, num_local, x.size(0), &Exchange::reverse);
  return all.narrow(0, 0, num_local).to(x.device());
}

Tensor exchange_meta(const Tensor &x, c10::SymInt num_all)
{
  check_rows("exchange", x);
  return at::empty_symint(with_rows(x, num_all), x.options());
}

Tensor exchange_reverse_meta(const Tensor &x, c10::SymInt num_local)
{
  check_rows("exchange_reverse", x);
  return at::empty_symint(with_rows(x, num_local), x.options());
}

Tensor exchange_autograd(const Tensor &x, c10::SymInt num_all)
{
  check_rows("exchange", x);
  return Rows<true>::apply(x, num_all);
}

Tensor exchange_reverse_autograd(const Tensor &x, c10::SymInt num_local)
{
  check_rows("exchange_reverse", x);
  return Rows<false>::apply(x, num_local);
}

bool exchanges(const Tensor &) { return get_exchange() != nullptr; }

void exchange_in_place(const Tensor &x, int64_t num_local)
{
  check_rows("exchange_", x);
  Exchange *const transport = transport_for("exchange_", x, num_local, x.size(0));
  if (!transport) return;
  TORCH_CHECK_VALUE(x.is_cpu() && x.is_contiguous(), "exchange_: x must be contiguous, on the CPU");
  fill_ghosts(*transport, x, num_local);
}

}    // namespace tdn
