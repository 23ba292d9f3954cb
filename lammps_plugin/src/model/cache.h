// SPDX-License-Identifier: MIT

/* The model that was loaded last stays in memory, so that an input that goes through many systems
   (clear, pair_style, pair_coeff and so on) reads and checks its file once. */

#ifndef TDN_MODEL_CACHE_H
#define TDN_MODEL_CACHE_H

#include "tdn_model.h"

#include <memory>
#include <string>

namespace tdn {

/** The model of a file; the arguments and errors are those of the constructor of TDNModel. Loaded
    anew if the file has changed. */
std::shared_ptr<TDNModel> open_model(const std::string &path, const std::string &device,
                                     int local_rank, bool check);

}    // namespace tdn

#endif
