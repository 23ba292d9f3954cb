#include "cp_message_kernels.h"

#include <cstdlib>
#include <cstring>

namespace tdn {

extern const KernelTable kernels_generic;
#ifdef TDN_X86
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
#endif

namespace {

// The widest instructions the processor has, limited by TDN_CPU_CAPABILITY (generic, avx2 or
// avx512), which is meant for tests.
const KernelTable &choose()
{
#ifdef TDN_X86
  const char *limit = std::getenv("TDN_CPU_CAPABILITY");
  if (limit && !std::strcmp(limit, "generic")) return kernels_generic;
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (avx512 && !(limit && !std::strcmp(limit, "avx2"))) return kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2;
#endif
  return kernels_generic;
}

}    // namespace

const KernelTable &kernel_table()
{
  static const KernelTable &table = choose();
  return table;
}

}    // namespace tdn
