// SPDX-License-Identifier: MIT

/* Check sums of a model file's parts, which PyTorch does not compare. */

#ifndef TDN_ARCHIVE_H
#define TDN_ARCHIVE_H

#include <string>

namespace caffe2::serialize {
class PyTorchStreamReader;
}

namespace tdn {

/// Throws std::runtime_error if a part of the zip file differs from its CRC-32.
void check_archive(const std::string &path, caffe2::serialize::PyTorchStreamReader &reader);

}    // namespace tdn

#endif
