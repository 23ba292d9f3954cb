// SPDX-License-Identifier: MIT

#include "description.h"

#include "json.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

namespace tdn {

namespace {

void require(bool condition, const std::string &message)
{
  if (!condition) throw std::runtime_error(message);
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
  Json json = Json::parse(text);
  const std::string format = json.text_or("format", "");
  require(format == "tdn-compiled",
          "its metadata has the format \"" + format + "\", expected \"tdn-compiled\"; "
          "write the file with tdn-export");

  Metadata metadata;
  metadata.format_version = static_cast<int>(json.at("format_version").integer());
  metadata.tdn_version = json.text_or("tdn_version", "unknown");
  require(metadata.format_version <= newest_format_version,
          "it has format version " + std::to_string(metadata.format_version) +
              ", this plugin reads up to version " + std::to_string(newest_format_version) +
              "; upgrade TDN to at least " + metadata.tdn_version +
              " and run: tdn-lammps build");

  const Json &units = json.at("units");
  require(units.text_or("energy", "") == "eV" && units.text_or("length", "") == "angstrom",
          "its units are " + units.text_or("energy", "?") + " and " +
              units.text_or("length", "?") + ", expected eV and angstrom");

  metadata.r_max = json.at("r_max").number();
  require(metadata.r_max > 0.0 && std::isfinite(metadata.r_max),
          "its cutoff r_max is not a positive number");
  metadata.num_layers = static_cast<int>(json.at("num_layers").integer());
  metadata.species = json.at("species").strings();
  require(!metadata.species.empty(), "its list of species is empty");
  metadata.dtype = json.text_or("dtype", "unknown");
  metadata.architecture = json.text_or("architecture", "unknown");
  const std::string forces = json.text_or("forces", "gradient");
  require(forces == "gradient" || forces == "direct",
          "its forces are \"" + forces + "\", expected gradient or direct; upgrade TDN");
  metadata.direct_forces = forces == "direct";
  metadata.committee = 1;
  if (json.has("committee")) {
    metadata.committee = static_cast<int>(json.at("committee").integer());
    require(metadata.committee >= 2, "its committee has " + std::to_string(metadata.committee) +
                                         " networks, expected at least 2; export it again");
  }
  if (json.has("target")) {
    const Json &target = json.at("target");
    metadata.target = {target.text_or("device", ""), target.text_or("processor", ""),
                       target.text_or("torch", "")};
  }
  metadata.torch_version = json.text_or("torch_version", "unknown");
  metadata.weight_hash = json.text_or("weight_hash", "");
  return metadata;
}

Reference parse_reference(const std::string &text, bool direct_forces)
{
  const Json json = Json::parse(text);
  Reference reference;
  reference.species = json.at("species").integers();
  const auto &edges = json.at("edge_index").array();
  require(edges.size() == 2, "edge_index must have two rows");
  reference.edge_index = edges[0].integers();
  const auto neighbours = edges[1].integers();
  reference.edge_index.insert(reference.edge_index.end(), neighbours.begin(), neighbours.end());
  reference.edge_vec = json.at("edge_vec").flat_numbers();
  reference.num_local = json.at("num_local").integer();
  reference.atom_energy = json.at("atom_energy").flat_numbers();
  reference.forces = json.at("forces").flat_numbers();
  if (!direct_forces) reference.virial = json.at("virial").flat_numbers();

  const Json &tolerance = json.at("tolerance");
  reference.energy_tolerance = tolerance.at("energy").number();
  reference.force_tolerance = tolerance.at("forces").number();
  reference.virial_tolerance = direct_forces ? 0.0 : tolerance.at("virial").number();

  const auto num_all = static_cast<int64_t>(reference.species.size());
  const auto num_edges = static_cast<std::size_t>(reference.num_edges());
  require(edges[0].array().size() == num_edges && neighbours.size() == num_edges &&
              reference.num_local >= 0 && reference.num_local <= num_all &&
              reference.atom_energy.size() == static_cast<std::size_t>(reference.num_local) &&
              reference.forces.size() == 3 * reference.species.size() &&
              reference.virial.size() == (direct_forces ? 0 : 9) &&
              (!direct_forces || reference.num_local == num_all),
          "the sizes of its arrays do not fit together");
  for (const int64_t node : reference.edge_index)
    require(node >= 0 && node < num_all, "an edge points to an atom that does not exist");
  return reference;
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
    double *centre = &forces[3 * reference.edge_index[e]];
    double *neighbour = &forces[3 * reference.edge_index[num_edges + e]];
    for (int a = 0; a < 3; a++) {
      centre[a] += g[a];
      neighbour[a] -= g[a];
      for (int b = 0; b < 3; b++) virial[3 * a + b] -= r[a] * g[b];
    }
  }

  const double energy_error = deviation(found.atom_energy, reference.atom_energy);
  const double force_error = deviation(forces.data(), reference.forces);
  const double virial_error = deviation(virial.data(), reference.virial);
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

}    // namespace tdn
