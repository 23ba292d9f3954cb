// SPDX-License-Identifier: MIT

/* A compiled TDN model: loads and evaluates a file *.tdn.pth or *.tdn.pt2. Includes neither LAMMPS
   nor, in this header, PyTorch. Units are eV and angstrom. */

#ifndef TDN_MODEL_H
#define TDN_MODEL_H

#include "exchange/exchange.h"    // transport of features between processes, of the operator library

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tdn {

/// What machine code is compiled for; empty for TorchScript, which runs everywhere.
struct Target {
  std::string device;       // "cpu" or "cuda"
  std::string processor;    // family of instructions such as AVX2, or the model of the GPU
  std::string torch;        // release of PyTorch, such as 2.13
};

/// Contents of metadata.json that a program needs.
struct Metadata {
  double r_max;                        // cutoff radius in angstrom
  int num_layers;                      // message-passing layers
  std::vector<std::string> species;    // chemical symbols; a species index counts in this list
  std::string dtype;                   // "float32" or "float64"
  bool direct_forces;                  // the forces are not the gradient of the energy
  int committee;                       // number of networks, whose mean is the result; 1 for one
  Target target;
  std::string architecture;            // this and the next are only to be shown
  std::string tdn_version;
};

/// A directed graph: nodes [0, num_local) receive messages, the others only send.
struct Graph {
  const int64_t *species;       // [num_all] species index
  int64_t num_all;
  int64_t num_local;
  const int64_t *edge_index;    // [2, num_edges] centers (non-decreasing), then neighbors
  const double *edge_vec;       // [num_edges, 3] from center to neighbor
  int64_t num_edges;
};

/// Views into memory of the model, valid until its next evaluation.
struct Evaluation {
  const double *atom_energy;      // [num_local]
  const double *edge_gradient;    // [num_edges, 3] derivative of the energy by edge_vec
  const double *forces;           // [num_local, 3] instead, of a model with direct forces
  const double *members;          // [committee, ...] the same of each network, if asked for
};

/// A list of pairs in the memory of the model's device; see TDNModel::find_pairs.
struct FoundPairs;

/** Positions and a list of pairs, with both directions of every pair within the cutoff and any
    further ones. Nodes [0, num_local) are the centers, the others atoms of other processes. */
struct Pairs {
  const double *positions;      // [num_rows, 3]
  int64_t num_rows;
  const int32_t *center;        // [num_local] row of each center
  const int64_t *begin;         // [num_local + 1] first pair of each center
  const int32_t *other;         // [num_pairs] row of the other atom
  const int32_t *node;          // [num_rows] whose image a row is; -1 for none
  const int64_t *species;       // [num_all]
  int64_t num_local;
  int64_t num_all;
  int64_t build = 0;            // another number after each build of the list; 0: not known
  int64_t count = -1;           // of pairs, where `begin` is not in the memory of the host
  bool on_device = false;       // all this is in the memory of the model's GPU; so are results, in
                                // the order of PyTorch's current stream
  const FoundPairs *found = nullptr;    // instead of `begin` and `other`

  int64_t num_pairs() const { return count < 0 ? begin[num_local] : count; }
};

/// Views into memory of the model, valid until its next evaluation.
struct Forces {
  const double *atom_energy;    // [num_local]
  const double *forces;         // [num_local, 3], complete
  const double *virial;         // [3, 3], the share of this process
  const double *atom_virial;    // [num_local, 3, 3], half of every edge to each of its ends
  const double *centroid;       // [num_local, 3, 3], all of an edge to its neighbor
  const double *members;        // [committee, num_local, 3] forces of each network, if asked for
};

class TDNModel {
 public:
  /** Load `path` to `device` ("auto", "cpu", "cuda" or "cuda:N"). `local_rank` chooses among
      several GPUs. With `check` the structure stored in the file is evaluated and compared.
      Throws std::runtime_error with one line for the user. */
  TDNModel(const std::string &path, const std::string &device, int local_rank, bool check);
  ~TDNModel();
  TDNModel(const TDNModel &) = delete;
  TDNModel &operator=(const TDNModel &) = delete;

  const Metadata &metadata() const;

  /// "cpu" or "cuda:N".
  std::string device() const;

  /// Bytes that one node has in the widest feature exchange of an evaluation; 0 without exchange.
  int64_t exchange_bytes() const;

  /// Whether it goes from positions to forces here; else it is evaluated from edges.
  bool takes_positions() const;

  /// Whether the last evaluation from positions read these very arrays, not copies of them.
  bool has_read(const Pairs &pairs) const;

  /** On a GPU: record an evaluation from positions, and repeat it while all arrays fit in the same
      memory. For models that take positions, on one process; else nothing is recorded. */
  void use_graphs(bool on);

  /// Why an evaluation could not be recorded, in one line; empty where nothing came in the way.
  std::string graphs_failure() const;

  /** Bytes that the evaluation of a graph takes on the device, estimated from the structure in the
      file; without edges where it takes positions. And bytes that can still be allocated there, infinite if unknown. */
  double memory_needed(int64_t num_all, int64_t num_edges) const;
  double memory_left() const;

  /// Index of the GPU; -1 for the CPU.
  int gpu_index() const;

  /** Energies and their derivatives. `exchange` may be null if all nodes are local. With `members`,
      for a committee, also the results of each network.
      Throws std::runtime_error. */
  Evaluation evaluate(const Graph &graph, Exchange *exchange, bool members = false);

  /// Energies, forces and virials, with `per_atom` those of atoms; likewise.
  Forces evaluate(const Pairs &pairs, Exchange *exchange, bool per_atom, bool members = false);

  /** All pairs of the first `num_centers` of `num_rows` positions with any other one, not farther
      apart than a distance, for a model that takes positions; in an order of its own. `reached`
      gets 1 for each row that is in a pair; it may be null. Throws std::runtime_error. */
  std::shared_ptr<const FoundPairs> find_pairs(const double *positions, int64_t num_rows,
                                               int64_t num_centers, double distance,
                                               std::vector<uint8_t> *reached);

  /// Such a list in memory of the host: `begin` and `other` of Pairs.
  static void copy(const FoundPairs &found, std::vector<int64_t> &begin,
                   std::vector<int32_t> &other);

  /// Bytes that such a list takes in memory of the host.
  static double host_bytes(const FoundPairs &found);

  /// Number of threads for the operators on the CPU.
  static void set_num_threads(int num_threads);
  static int num_threads();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl;
};

}    // namespace tdn

#endif
