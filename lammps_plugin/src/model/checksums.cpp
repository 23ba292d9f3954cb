// SPDX-License-Identifier: MIT

#include "checksums.h"

#include "printable.h"

#include <caffe2/serialize/inline_container.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <vector>

namespace tdn {

namespace {

using Bytes = std::vector<unsigned char>;

constexpr std::size_t max_expansion = 100;    // a part to the whole file; code packs tenfold

[[noreturn]] void damaged(const std::string &what)
{
  throw std::runtime_error("it is damaged (" + what +
                           "); copy it again or write it with tdn-export");
}

/// Little-endian number of `size` bytes.
uint64_t number(const Bytes &bytes, std::size_t offset, int size)
{
  if (offset + size > bytes.size() || offset + size < offset) damaged("its table of contents");
  uint64_t value = 0;
  for (int k = size - 1; k >= 0; k--) value = value << 8 | bytes[offset + k];
  return value;
}

uint32_t crc32(const unsigned char *data, std::size_t size)
{
  static const auto table = [] {
    std::array<uint32_t, 256> values{};
    for (uint32_t n = 0; n < 256; n++) {
      values[n] = n;
      for (int bit = 0; bit < 8; bit++)
        values[n] = values[n] & 1 ? 0xEDB88320u ^ (values[n] >> 1) : values[n] >> 1;
    }
    return values;
  }();
  uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t k = 0; k < size; k++) crc = table[(crc ^ data[k]) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

/// Where the table of contents begins and how many entries it has.
std::pair<uint64_t, uint64_t> find_directory(const Bytes &file)
{
  constexpr std::size_t end_size = 22, longest_comment = 65535;
  if (file.size() < end_size) damaged("cut short");
  const std::size_t last = file.size() - end_size;
  for (std::size_t end = last; end + longest_comment >= last; end--) {
    if (number(file, end, 4) == 0x06054b50) {
      uint64_t entries = number(file, end + 10, 2), offset = number(file, end + 16, 4);
      if (entries == 0xFFFF || offset == 0xFFFFFFFF) {    // zip64: a larger record before
        if (end < 20 || number(file, end - 20, 4) != 0x07064b50) damaged("its table of contents");
        const uint64_t large = number(file, end - 12, 8);
        entries = number(file, large + 32, 8);
        offset = number(file, large + 48, 8);
      }
      return {offset, entries};
    }
    if (end == 0) break;
  }
  damaged("cut short");
}

}    // namespace

void check_archive(const std::string &path, caffe2::serialize::PyTorchStreamReader &reader)
{
  std::ifstream stream(path, std::ios::binary);
  const Bytes file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  auto [offset, entries] = find_directory(file);
  std::set<std::string> seen;
  for (uint64_t k = 0; k < entries; k++) {
    if (number(file, offset, 4) != 0x02014b50) damaged("its table of contents");
    const auto crc = static_cast<uint32_t>(number(file, offset + 16, 4));
    const std::size_t length = number(file, offset + 28, 2);
    number(file, offset + 46 + length, 0);    // the name lies within the file
    const std::string name(file.begin() + offset + 46, file.begin() + offset + 46 + length);
    const std::string part = name.substr(name.find('/') + 1);
    if (!seen.insert(part).second) damaged(printable(part) + " is there twice");
    if (reader.getRecordSize(part) > max_expansion * file.size())
      damaged("the size of " + printable(part) + " makes no sense");
    const auto [data, size] = reader.getRecord(part);
    if (crc32(static_cast<const unsigned char *>(data.get()), size) != crc)
      damaged(printable(part) + " fails its check sum");
    offset += 46 + length + number(file, offset + 30, 2) + number(file, offset + 32, 2);
  }
}

}    // namespace tdn
