// SPDX-License-Identifier: MIT

/* The last model stays in memory, so that an input with many systems (clear, pair_style, pair_coeff
   and so on) reads and checks its file once. */

#ifndef TDN_MODEL_CACHE_H
#define TDN_MODEL_CACHE_H

#include "tdn_model.h"

#include <memory>
#include <string>

namespace tdn {

/** The model of a file; arguments and errors are those of the constructor of TDNModel. Loaded again
    if the file has changed. */
std::shared_ptr<TDNModel> open_model(const std::string &path, const std::string &device,
                                     int local_rank, bool check);

}    // namespace tdn

#endif
