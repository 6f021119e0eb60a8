#include "distributed/rank_environment.h"

#include <unistd.h>

#include <charconv>
#include <optional>

#include "base/error.h"

namespace fathom {
namespace {

/// The names under which one family of launchers says who we are; empty where it has no such variable.
struct Launcher {
  const char* name;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

// Torch's variables come first, since torchrun and `fathom launch` may themselves be started by the others.
// Slurm comes last: its variables are also set in a batch script that runs mpirun. A step's own count
// precedes the job's.
constexpr Launcher kLaunchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""},
    {"srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""},
};

class Variables {
 public:
  explicit Variables(const std::map<std::string, std::string>& values) : values_(values) {}

  const std::string* find(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() || found->second.empty() ? nullptr : &found->second;
  }

  std::optional<int64_t> find_number(const std::string& name) const {
    const std::string* text = find(name);
    if (!text) return std::nullopt;
    int64_t value = 0;
    const auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (code != std::errc() || end != text->data() + text->size() || value < 0) {
      fail(ErrorKind::kConfig, "environment: {}='{}' is no non-negative whole number", name, *text);
    }
    return value;
  }

 private:
  const std::map<std::string, std::string>& values_;
};

void require(bool holds, const Launcher& launcher, const std::string& what) {
  if (!holds) fail(ErrorKind::kConfig, "environment ({}): {}", launcher.name, what);
}

std::optional<Launcher> find_launcher(const Variables& variables) {
  for (const Launcher& launcher : kLaunchers) {
    const bool has_rank = variables.find(launcher.rank), has_size = variables.find(launcher.size);
    if (has_rank && has_size) return launcher;
    const bool is_slurm = launcher.rank == std::string("SLURM_PROCID");
    require(has_rank == has_size || is_slurm, launcher,
            fmt::format("{} is set but {} is not", has_rank ? launcher.rank : launcher.size,
                        has_rank ? launcher.size : launcher.rank));
  }
  return std::nullopt;
}

/// Ranks on this machine, where the launcher does not say it outright.
int64_t guess_local_size(const Variables& variables, int64_t size) {
  const bool one_node =
      variables.find_number("SLURM_STEP_NUM_NODES") == 1 ||
      (!variables.find("SLURM_STEP_NUM_NODES") && variables.find_number("SLURM_NNODES") == 1);
  return one_node ? size : 0;
}

void read_rank(RankEnvironment& result, const Variables& variables, const Launcher& launcher) {
  result.rank = *variables.find_number(launcher.rank);
  result.size = *variables.find_number(launcher.size);
  require(result.rank < result.size, launcher,
          fmt::format("{}={} but {}={}", launcher.rank, result.rank, launcher.size, result.size));
  const auto local_size = variables.find_number(launcher.local_size);
  result.local_size = local_size ? *local_size : guess_local_size(variables, result.size);
  const auto local_rank = variables.find_number(launcher.local_rank);
  require(local_rank || result.on_one_machine() || result.size == 1, launcher,
          fmt::format("{} is not set and ranks may be on several machines", launcher.local_rank));
  result.local_rank = local_rank.value_or(result.rank);
  require(result.local_size == 0 || result.local_rank < result.local_size, launcher,
          fmt::format("{}={} but {} ranks on this machine", launcher.local_rank, result.local_rank,
                      result.local_size));
  require(result.local_size <= result.size, launcher,
          fmt::format("{} ranks on this machine but {} in all", result.local_size, result.size));
}

/// A port that every rank of the same job arrives at by itself, outside the range of ephemeral ports.
int64_t port_of_job(const std::string& job) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return 15000 + static_cast<int64_t>(hash % 15000);
}

void read_master(RankEnvironment& result, const Variables& variables, const Launcher& launcher) {
  const std::string* nodes = variables.find("SLURM_STEP_NODELIST");
  if (!nodes) nodes = variables.find("SLURM_JOB_NODELIST");
  if (const std::string* host = variables.find("MASTER_ADDR")) {
    result.master_host = *host;
  } else if (!result.on_one_machine()) {
    require(nodes, launcher,
            "MASTER_ADDR (the host of rank 0) is not set and ranks may be on several machines");
    result.master_host = first_slurm_host(*nodes);
  }
  if (const auto port = variables.find_number("MASTER_PORT")) {
    require(*port > 0 && *port < 65536, launcher, fmt::format("MASTER_PORT={} is no port", *port));
    result.master_port = *port;
    return;
  }
  std::string job;
  for (const char* name : {"SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}) {
    if (const std::string* value = variables.find(name)) job += *value + "/";
  }
  require(!job.empty(), launcher, "MASTER_PORT (a free port on the host of rank 0) is not set");
  result.master_port = port_of_job(job);
}

}  // namespace

RankEnvironment RankEnvironment::from_variables(const std::map<std::string, std::string>& values) {
  const Variables variables(values);
  RankEnvironment result;
  const std::optional<Launcher> launcher = find_launcher(variables);
  if (!launcher) return result;
  read_rank(result, variables, *launcher);
  if (result.size == 1) {
    result.local_size = 1;
    return result;
  }
  read_master(result, variables, *launcher);
  const std::string* agent = variables.find("TORCHELASTIC_USE_AGENT_STORE");
  result.store_is_running = agent && *agent == "True";
  if (const auto fd = variables.find_number("FATHOM_STORE_FD"); fd && result.rank == 0) {
    result.store_fd = static_cast<int>(*fd);
  }
  if (const std::string* attempt = variables.find("TORCHELASTIC_RESTART_COUNT")) result.attempt = *attempt;
  return result;
}

RankEnvironment RankEnvironment::from_environment() {
  std::map<std::string, std::string> values;
  for (char** entry = environ; *entry; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) values[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return from_variables(values);
}

std::string first_slurm_host(const std::string& node_list) {
  const size_t stop = node_list.find_first_of(",[");
  const std::string prefix = node_list.substr(0, stop);
  if (stop == std::string::npos || node_list[stop] == ',') {
    if (prefix.empty()) fail(ErrorKind::kConfig, "environment: no host in SLURM node list '{}'", node_list);
    return prefix;
  }
  const size_t close = node_list.find(']', stop);
  const size_t end = node_list.find_first_of(",-]", stop + 1);
  if (close == std::string::npos || end == stop + 1) {
    fail(ErrorKind::kConfig, "environment: malformed SLURM node list '{}'", node_list);
  }
  const size_t rest = node_list.find(',', close);
  const std::string suffix = node_list.substr(close + 1, rest == std::string::npos ? rest : rest - close - 1);
  return prefix + node_list.substr(stop + 1, end - stop - 1) + suffix;
}

}  // namespace fathom
