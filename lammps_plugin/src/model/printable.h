// SPDX-License-Identifier: MIT

/* Text that comes from a file, such as names, keys and symbols, as it may be shown to a user. */

#ifndef TDN_PRINTABLE_H
#define TDN_PRINTABLE_H

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace tdn {

/** Printable ASCII stays. All other characters become the escapes of Python's `ascii`: \n, \x1b,
    \u202e, \U000e0001; a byte that is no UTF-8 becomes \xff. What exceeds `limit` characters
    becomes "...". Terminals and logs thus never get line breaks or control sequences. */
inline std::string printable(const std::string &text, std::size_t limit = 80)
{
  std::string out;
  for (std::size_t k = 0; k < text.size(); k++) {
    const auto first = static_cast<unsigned char>(text[k]);
    int following = first < 0xC2 || first > 0xF4 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3;
    std::uint32_t code = following ? first & (0x3F >> following) : first;
    for (int n = 1; n <= following; n++) {
      const unsigned char next = k + n < text.size() ? text[k + n] : 0;
      if ((next & 0xC0) != 0x80) {
        following = 0;
        code = first;
      } else {
        code = code << 6 | (next & 0x3F);
      }
    }
    k += following;

    char shown[11] = {static_cast<char>(code)};
    if (code == '\t' || code == '\n' || code == '\r')
      std::snprintf(shown, sizeof(shown), "\\%c", code == '\t' ? 't' : code == '\n' ? 'n' : 'r');
    else if (code < 0x20 || code > 0x7E)
      std::snprintf(shown, sizeof(shown),
                    code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
    if (out.size() + std::string(shown).size() > limit) return out + "...";
    out += shown;
  }
  return out;
}

}    // namespace tdn

#endif
