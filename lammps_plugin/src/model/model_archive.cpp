// SPDX-License-Identifier: MIT

#include "model_archive.h"

#include "backend.h"
#include "checksums.h"

#include <fstream>
#include <stdexcept>

namespace tdn {

namespace {

bool is_machine_code(caffe2::serialize::PyTorchStreamReader &archive)
{
  for (const auto &record : archive.getAllRecords())
    if (record.rfind(machine_code_folder, 0) == 0) return true;
  return false;
}

}    // namespace

ModelArchive::ModelArchive(const std::string &path)
{
  if (!std::ifstream(path)) throw std::runtime_error("the file cannot be opened");
  try {
    reader = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path);
    machine_code = is_machine_code(*reader);
    if (!reader->hasRecord("extra/metadata.json")) {
      if (!machine_code && !reader->hasRecord("constants.pkl"))
        throw std::runtime_error("it is a checkpoint, not a compiled model; convert it with: "
                                 "tdn-export");
      throw std::runtime_error(std::string("it is ") +
                               (machine_code ? "an AOTInductor package" : "a TorchScript file") +
                               " without TDN's metadata; write it with tdn-export");
    }
    check_archive(path, *reader);
    metadata = read("extra/metadata.json");
    if (reader->hasRecord("extra/reference.json")) reference = read("extra/reference.json");
  } catch (const c10::Error &) {
    throw std::runtime_error("it is damaged, incomplete or no compiled TDN model; "
                             "copy it again or write it with tdn-export");
  }
}

std::string ModelArchive::read(const std::string &name)
{
  const auto [data, size] = reader->getRecord(name);
  return {static_cast<const char *>(data.get()), size};
}

}    // namespace tdn
