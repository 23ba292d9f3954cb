// SPDX-License-Identifier: MIT

#include "description.h"

#include "printable.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <climits>
#include <cmath>
#include <set>
#include <sstream>
#include <stdexcept>

namespace tdn {

namespace {

using Json = nlohmann::json;

const char again[] = "; write it again with tdn-export";

void require(bool condition, const std::string &message)
{
  if (!condition) throw std::runtime_error(message);
}

/// JSON by the letter, without duplicate keys; `name` is that of the part in the archive.
Json parse(const std::string &name, const std::string &text)
{
  const auto refuse = [&](const std::string &reason) {
    throw std::runtime_error(name + " is not valid JSON: " + reason + again);
  };
  require(text.size() <= max_json_bytes,
          name + " has " + std::to_string(text.size()) + " bytes, expected at most " +
              std::to_string(max_json_bytes) + "; the file was not written by tdn-export");
  // the library takes a zero byte for the end of the text
  if (text.find('\0') != std::string::npos) refuse("it has a zero byte");

  std::vector<std::set<std::string>> open;    // keys of the objects around the current place
  const auto check = [&](int depth, Json::parse_event_t event, Json &value) {
    using Event = Json::parse_event_t;
    const bool begins = event == Event::object_start || event == Event::array_start;
    if (begins && depth >= max_json_depth) refuse("nested too deeply");
    if (event == Event::object_start) open.emplace_back();
    if (event == Event::object_end) open.pop_back();
    if (event == Event::key && !open.back().insert(value.get<std::string>()).second)
      refuse("the key " + printable(value.get<std::string>()) + " is there twice");
    return true;
  };
  Json json;
  try {
    json = Json::parse(text, check);
  } catch (const Json::exception &error) {
    const std::string reason = error.what();    // [json.exception.parse_error.101] parse error at
    refuse(printable(reason.substr(reason.find(' ') + 1), 120));
  }
  if (!json.is_object()) refuse("expected an object");
  return json;
}

/// A value as it may be shown.
std::string shown(const Json &value)
{
  return printable(value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', true));
}

bool is_count(const Json &value, int smallest = 1)
{
  return value.is_number_integer() && value >= smallest && value <= INT_MAX;
}

bool is_text_list(const Json &value)
{
  return value.is_array() && !value.empty() &&
      std::all_of(value.begin(), value.end(), [](const Json &item) { return item.is_string(); });
}

/// Entries of metadata.json; every mistake names the entry.
class Entries {
 public:
  explicit Entries(const Json &json) : json(json) {}

  bool has(const char *key) const { return json.contains(key); }

  const Json &at(const char *key) const
  {
    require(has(key), std::string("metadata '") + key + "' is missing" + again);
    return json.at(key);
  }

  [[noreturn]] void refuse(const char *key) const
  {
    throw std::runtime_error(std::string("metadata '") + key + "' is " + shown(at(key)) + again);
  }

  int count(const char *key, int smallest = 1) const
  {
    if (!is_count(at(key), smallest)) refuse(key);
    return at(key).get<int>();
  }

  std::string text(const char *key) const
  {
    if (!at(key).is_string()) refuse(key);
    return at(key).get<std::string>();
  }

  /// For people; anything goes.
  std::string note(const char *key) const { return has(key) ? shown(at(key)) : "unknown"; }

 private:
  const Json &json;
};

/// Append the numbers of nested arrays in row-major order; false for another shape.
template <typename T>
bool read_array(const Json &value, const std::vector<std::size_t> &shape, std::vector<T> &out,
                std::size_t axis = 0)
{
  if (axis == shape.size()) {
    if (std::is_integral<T>::value ? !value.is_number_integer() : !value.is_number()) return false;
    out.push_back(value.get<T>());
    return true;
  }
  return value.is_array() && value.size() == shape[axis] &&
      std::all_of(value.begin(), value.end(), [&](const Json &item) {
           return read_array(item, shape, out, axis + 1);
         });
}

bool all_within(const std::vector<int64_t> &indices, std::size_t count)
{
  return std::all_of(indices.begin(), indices.end(), [count](int64_t index) {
    return index >= 0 && index < static_cast<int64_t>(count);
  });
}

/// Largest absolute difference; NaN counts as infinite.
double deviation(const double *found, const std::vector<double> &expected)
{
  double worst = 0.0;
  for (std::size_t k = 0; k < expected.size(); k++) {
    const double difference = std::fabs(found[k] - expected[k]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst;
}

}    // namespace

Metadata parse_metadata(const std::string &text)
{
  const Json json = parse("metadata.json", text);
  const Entries entries(json);
  require(entries.has("format") && json["format"] == "tdn-compiled",
          "its metadata has the format " + entries.note("format") +
              ", expected tdn-compiled; write the file with tdn-export");
  const Json version = json.value("format_version", Json());
  require(is_count(version) && version <= newest_format_version,
          "it has format version " + shown(version) + ", this plugin reads up to version " +
              std::to_string(newest_format_version) + "; upgrade TDN to at least " +
              entries.note("tdn_version") + " and run: tdn-lammps build");

  if (!entries.at("units").is_object()) entries.refuse("units");
  const Entries units(entries.at("units"));
  require(json["units"] == Json({{"energy", "eV"}, {"length", "angstrom"}}),
          "its units are " + units.note("energy") + " and " + units.note("length") +
              ", expected eV and angstrom");

  Metadata metadata;
  if (!entries.at("r_max").is_number() || !(json["r_max"] > 0.0)) entries.refuse("r_max");
  metadata.r_max = json["r_max"].get<double>();
  metadata.num_layers = entries.count("num_layers");
  if (!is_text_list(entries.at("species"))) entries.refuse("species");
  metadata.species = json["species"].get<std::vector<std::string>>();
  const Json &numbers = entries.at("atomic_numbers");
  if (!numbers.is_array() || numbers.size() != metadata.species.size() ||
      !std::all_of(numbers.begin(), numbers.end(), [](const Json &z) { return is_count(z); }))
    entries.refuse("atomic_numbers");
  metadata.dtype = entries.text("dtype");
  if (metadata.dtype != "float32" && metadata.dtype != "float64") entries.refuse("dtype");

  const std::string forces = entries.has("forces") ? entries.text("forces") : "gradient";
  if (forces != "gradient" && forces != "direct") entries.refuse("forces");
  metadata.direct_forces = forces == "direct";
  metadata.committee = entries.has("committee") ? entries.count("committee", 2) : 1;
  if (entries.has("target")) {
    const Json &target = entries.at("target");
    for (const char *key : {"device", "processor", "torch"})
      if (!target.is_object() || !target.contains(key) || !target[key].is_string())
        entries.refuse("target");
    metadata.target = {target["device"], target["processor"], target["torch"]};
  }
  metadata.architecture = entries.note("architecture");
  metadata.tdn_version = entries.note("tdn_version");
  return metadata;
}

Reference parse_reference(const std::string &text, const Metadata &metadata)
{
  const Json json = parse("reference.json", text);
  const auto at = [&json](const char *key) -> const Json & {
    require(json.contains(key), std::string("reference.json lacks '") + key + "'" + again);
    return json[key];
  };
  const auto check = [](const char *key, bool valid) {
    require(valid, std::string(key) + " of reference.json makes no sense" + again);
  };

  check("num_local", is_count(at("num_local")));
  const auto num_atoms = json["num_local"].get<std::size_t>();
  const Json &edges = at("edge_vec");
  check("edge_vec", edges.is_array() && !edges.empty());
  const std::size_t num_edges = edges.size();

  Reference reference;
  const auto read = [&](const char *key, const std::vector<std::size_t> &shape, auto &out) {
    check(key, read_array(at(key), shape, out));
  };
  read("species", {num_atoms}, reference.species);
  read("edge_index", {2, num_edges}, reference.edge_index);
  read("edge_vec", {num_edges, 3}, reference.edge_vec);
  read("atom_energy", {num_atoms}, reference.atom_energy);
  read("forces", {num_atoms, 3}, reference.forces);
  if (!metadata.direct_forces) read("virial", {3, 3}, reference.virial);
  check("species", all_within(reference.species, metadata.species.size()));
  check("edge_index", all_within(reference.edge_index, num_atoms));

  const Json &tolerance = at("tolerance");
  const auto tolerance_of = [&](const char *key) {
    check("tolerance", tolerance.is_object() && tolerance.contains(key) &&
              tolerance[key].is_number() && tolerance[key] > 0.0);
    return tolerance[key].get<double>();
  };
  reference.energy_tolerance = tolerance_of("energy");
  reference.force_tolerance = tolerance_of("forces");
  reference.virial_tolerance = metadata.direct_forces ? 0.0 : tolerance_of("virial");
  return reference;
}

void compare_with_reference(const Reference &reference, const Forces &found)
{
  const double energy_error = deviation(found.atom_energy, reference.atom_energy);
  const double force_error = deviation(found.forces, reference.forces);
  const double virial_error = deviation(found.virial, reference.virial);
  if (energy_error <= reference.energy_tolerance && force_error <= reference.force_tolerance &&
      virial_error <= reference.virial_tolerance)
    return;

  std::ostringstream message;
  message << "the structure stored in the file gives other results here: deviations (allowed) of "
          << energy_error << " (" << reference.energy_tolerance << ") eV/atom, " << force_error
          << " (" << reference.force_tolerance << ") eV/A, " << virial_error << " ("
          << reference.virial_tolerance
          << ") eV; run tdn-ops build and tdn-lammps build, then export the model again";
  throw std::runtime_error(message.str());
}

void compare_with_reference(const Reference &reference, const Evaluation &found)
{
  std::vector<double> forces(reference.forces.size(), 0.0);
  std::vector<double> virial(9, 0.0);
  const int64_t num_edges = found.forces ? 0 : reference.num_edges();
  if (found.forces) std::copy_n(found.forces, forces.size(), forces.begin());
  for (int64_t e = 0; e < num_edges; e++) {
    const double *r = &reference.edge_vec[3 * e];
    const double *g = found.edge_gradient + 3 * e;
    double *center = &forces[3 * reference.edge_index[e]];
    double *neighbor = &forces[3 * reference.edge_index[num_edges + e]];
    for (int a = 0; a < 3; a++) {
      center[a] += g[a];
      neighbor[a] -= g[a];
      for (int b = 0; b < 3; b++) virial[3 * a + b] -= r[a] * g[b];
    }
  }
  compare_with_reference(
      reference, Forces{found.atom_energy, forces.data(), virial.data(), nullptr, nullptr, nullptr});
}

}    // namespace tdn
