// SPDX-License-Identifier: MIT

/* The descriptions inside a model file: metadata.json and reference.json. */

#ifndef TDN_MODEL_FILE_H
#define TDN_MODEL_FILE_H

#include "tdn_model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace tdn {

/// A small structure with the results that the model gave when it was exported.
struct Reference {
  std::vector<int64_t> species;
  std::vector<int64_t> edge_index;    // [2, num_edges]
  std::vector<double> edge_vec;       // [num_edges, 3]
  int64_t num_local;
  std::vector<double> atom_energy;    // [num_local]
  std::vector<double> forces;         // [num_all, 3]
  std::vector<double> virial;         // [3, 3], empty for a model with direct forces
  double energy_tolerance, force_tolerance, virial_tolerance;

  int64_t num_edges() const { return static_cast<int64_t>(edge_vec.size() / 3); }
};

/// Validate metadata.json; throws std::runtime_error for what this program cannot use.
Metadata parse_metadata(const std::string &text);

/// Validate reference.json; `direct_forces` as in the metadata.
Reference parse_reference(const std::string &text, bool direct_forces);

/// Compare an evaluation of the reference; throws std::runtime_error with the deviations.
void compare_with_reference(const Reference &reference, const Evaluation &found);

}    // namespace tdn

#endif
