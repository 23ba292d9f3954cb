#include "exchange.h"

#include "exchange_ops.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <atomic>

namespace tdn {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::atomic<Exchange *> current_exchange{nullptr};

void check_rows(const char *name, const Tensor &x)
{
  TORCH_CHECK_VALUE(x.dim() >= 1, name, ": x must have a row per atom, found a scalar");
}

void check_transport(const char *name, const Exchange *transport, const Tensor &x,
                     int64_t num_local, int64_t num_all)
{
  TORCH_CHECK_VALUE(num_local >= 0 && num_local <= num_all, name, ": found ", num_local,
                    " local atoms of ", num_all, " atoms in all");
  if (!transport) {
    TORCH_CHECK_VALUE(num_local == num_all, name, ": found ", num_all - num_local,
                      " ghost atoms, but no transport between processes is set");
    return;
  }
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    ": x must be float32 or float64, found ", x.scalar_type());
}

// Numbers per row; also for no rows.
int64_t row_width(const Tensor &x)
{
  int64_t width = 1;
  for (int64_t d = 1; d < x.dim(); ++d) width *= x.size(d);
  return width;
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

std::vector<c10::SymInt> with_rows(const Tensor &x, const c10::SymInt &rows)
{
  std::vector<c10::SymInt> shape = x.sym_sizes().vec();
  shape[0] = rows;
  return shape;
}

Tensor call(const char *name, const Tensor &x, const c10::SymInt &rows)
{
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Tensor(const Tensor &, c10::SymInt)>()
      .call(x, rows);
}

// Each is the adjoint of the other. Gradients are always materialised, so that every process takes
// part in the communication.
struct Forward : Function<Forward> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, c10::SymInt num_all)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->saved_data["rows"] = x.sym_size(0);
    return call("tdn::exchange", x, num_all);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return {call("tdn::exchange_reverse", gradients[0], ctx->saved_data["rows"].toSymInt()),
            Tensor()};
  }
};

struct Reverse : Function<Reverse> {
  static Tensor forward(AutogradContext *ctx, const Tensor &x, c10::SymInt num_local)
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ctx->saved_data["rows"] = x.sym_size(0);
    return call("tdn::exchange_reverse", x, num_local);
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients)
  {
    return {call("tdn::exchange", gradients[0], ctx->saved_data["rows"].toSymInt()), Tensor()};
  }
};

}    // namespace

void set_exchange(Exchange *exchange) { current_exchange.store(exchange); }

Exchange *get_exchange() { return current_exchange.load(); }

Tensor exchange_rows(const Tensor &x, int64_t num_all)
{
  check_rows("exchange", x);
  Exchange *transport = get_exchange();
  const int64_t num_local = x.size(0);
  check_transport("exchange", transport, x, num_local, num_all);
  if (!transport) return x.clone(at::MemoryFormat::Contiguous);
  Tensor all = host_copy(x, num_all);
  transport->forward(all.mutable_data_ptr(), num_local, num_all, row_width(x),
                     x.scalar_type() == at::kDouble);
  return all.to(x.device());
}

Tensor exchange_reverse_rows(const Tensor &x, int64_t num_local)
{
  check_rows("exchange_reverse", x);
  Exchange *transport = get_exchange();
  const int64_t num_all = x.size(0);
  check_transport("exchange_reverse", transport, x, num_local, num_all);
  if (!transport) return x.clone(at::MemoryFormat::Contiguous);
  Tensor all = host_copy(x, num_all);
  transport->reverse(all.mutable_data_ptr(), num_local, num_all, row_width(x),
                     x.scalar_type() == at::kDouble);
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
  return Forward::apply(x, num_all);
}

Tensor exchange_reverse_autograd(const Tensor &x, c10::SymInt num_local)
{
  check_rows("exchange_reverse", x);
  return Reverse::apply(x, num_local);
}

}    // namespace tdn
