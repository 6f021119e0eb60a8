// Which rank this process is, as its launcher says through environment variables.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace fathom {

/// A process's place among the ranks. Plain value.
struct RankEnvironment {
  int64_t rank = 0;
  int64_t size = 1;
  int64_t local_rank = 0;  ///< among the ranks of this machine; chooses the GPU
  int64_t local_size = 1;  ///< ranks on this machine; 0 when the launcher does not say
  std::string master_host = "127.0.0.1";
  int64_t master_port = 0;
  bool store_is_running = false;  ///< the launcher itself (torchrun's agent) serves the rendezvous store
  int store_fd = -1;              ///< listening socket that `fathom launch` hands to rank 0, or -1
  std::string attempt = "0";  ///< which restart of the job this is; keeps attempts apart in a shared store

  bool on_one_machine() const { return local_size == size; }

  /// Reads, in this order: RANK, WORLD_SIZE, LOCAL_RANK (torchrun, fathom launch); OMPI_COMM_WORLD_* (Open
  /// MPI); PMI_* and MPI_LOCAL* (MPICH, Intel MPI); SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID (srun).
  /// MASTER_ADDR and MASTER_PORT rule where they are set; otherwise they follow from the node list and job
  /// number where possible. None of them: a group of one. Errors (kConfig): variables that are missing, no
  /// numbers, or contradict.
  static RankEnvironment from_environment();
  static RankEnvironment from_variables(const std::map<std::string, std::string>& variables);
};

/// The first host of a SLURM node list: "node[003-005,9],b1" gives "node003". Errors (kConfig): malformed.
std::string first_slurm_host(const std::string& node_list);

}  // namespace fathom
