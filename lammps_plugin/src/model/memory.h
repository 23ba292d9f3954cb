// SPDX-License-Identifier: MIT

/* How much memory this process can still get from the operating system. */

#ifndef TDN_HOST_MEMORY_H
#define TDN_HOST_MEMORY_H

namespace tdn {

/** Bytes of host memory that can still be allocated: the smallest of what the machine has left,
    what the control group (container or batch job) allows, and the process's own limit
    (ulimit -v). Infinite where nothing of this is known. */
double available_host_memory();

}    // namespace tdn

#endif
