// SPDX-License-Identifier: MIT

#include "memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

namespace tdn {

namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

/// First number in a file; infinite if there is none, as in "max".
double number_in(const std::string &path)
{
  std::ifstream file(path);
  double value;
  return file >> value ? value : unlimited;
}

double left_on_machine()
{
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line))
    if (line.compare(0, 13, "MemAvailable:") == 0) return 1024.0 * std::stod(line.substr(13));
  return unlimited;
}

/// What the control groups (version 2) from this process's one upwards leave.
double left_in_control_group()
{
  std::ifstream file("/proc/self/cgroup");
  std::string line, group;
  while (std::getline(file, line))
    if (line.compare(0, 3, "0::") == 0) group = line.substr(3);
  if (group.empty()) return unlimited;

  double left = unlimited;
  while (true) {
    const std::string folder = "/sys/fs/cgroup" + group;
    const double limit = number_in(folder + "/memory.max");
    if (limit < unlimited) {
      // pages of files are given back when memory is asked for
      double used = number_in(folder + "/memory.current");
      std::ifstream statistics(folder + "/memory.stat");
      std::string name;
      double value;
      while (statistics >> name >> value)
        if (name == "inactive_file" || name == "active_file") used -= value;
      left = std::min(left, std::max(0.0, limit - used));
    }
    if (group.empty() || group == "/") return left;
    group.resize(group.find_last_of('/'));
  }
}

double left_in_process()
{
  rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return unlimited;
  const double used = number_in("/proc/self/statm") * static_cast<double>(sysconf(_SC_PAGESIZE));
  return std::max(0.0, static_cast<double>(limit.rlim_cur) - used);
}

}    // namespace

double available_host_memory()
{
  return std::min({left_on_machine(), left_in_control_group(), left_in_process()});
}

}    // namespace tdn
