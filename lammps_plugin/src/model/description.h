// SPDX-License-Identifier: MIT

/* The descriptions inside a compiled file, metadata.json and reference.json. What is accepted is
   written in docs/compiled_file.md; tdn/inference/compiled_file.py accepts the same. */

#ifndef TDN_DESCRIPTION_H
#define TDN_DESCRIPTION_H

#include "tdn_model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace tdn {

/// Newest version of the compiled file's format that this program reads.
constexpr int newest_format_version = 3;

constexpr std::size_t max_json_bytes = 16 << 20;
constexpr int max_json_depth = 32;    // objects and arrays inside one another

/// A small structure with the results that the model gave when it was exported.
struct Reference {
  std::vector<int64_t> species;       // [num_atoms], all of them local
  std::vector<int64_t> edge_index;    // [2, num_edges]
  std::vector<double> edge_vec;       // [num_edges, 3]
  std::vector<double> atom_energy;    // [num_atoms]
  std::vector<double> forces;         // [num_atoms, 3]
  std::vector<double> virial;         // [3, 3], empty for a model with direct forces
  double energy_tolerance, force_tolerance, virial_tolerance;

  int64_t num_atoms() const { return static_cast<int64_t>(species.size()); }
  int64_t num_edges() const { return static_cast<int64_t>(edge_vec.size() / 3); }
};

/// Validate metadata.json; throws std::runtime_error for what this program cannot use.
Metadata parse_metadata(const std::string &text);

/// Validate reference.json of a file with these metadata.
Reference parse_reference(const std::string &text, const Metadata &metadata);

/// Compare an evaluation of the reference; throws std::runtime_error with the deviations.
void compare_with_reference(const Reference &reference, const Evaluation &found);
void compare_with_reference(const Reference &reference, const Forces &found);

}    // namespace tdn

#endif
