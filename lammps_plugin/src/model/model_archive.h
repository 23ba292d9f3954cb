// SPDX-License-Identifier: MIT

/* A model file as the archive that it is: its kind, its descriptions, and whether it is whole. */

#ifndef TDN_MODEL_ARCHIVE_H
#define TDN_MODEL_ARCHIVE_H

#include <caffe2/serialize/inline_container.h>

#include <memory>
#include <string>

namespace tdn {

/// A file with correct check sums, and both descriptions.
struct ModelArchive {
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader;
  bool machine_code = false;    // AOTInductor instead of TorchScript
  std::string metadata, reference;

  /// Throws std::runtime_error, which explains what is wrong with other files.
  explicit ModelArchive(const std::string &path);

 private:
  std::string read(const std::string &name);
};

}    // namespace tdn

#endif
