// What layers and the trainer know of other processes. One process gets `SoloCollective` and runs the same
// path.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/config.h"
#include "distributed/rank_environment.h"

namespace fathom {

/// A pending collective operation. `wait` makes its result visible (on CUDA: to the current stream).
class PendingOperation {
 public:
  virtual ~PendingOperation() = default;
  virtual void wait() = 0;
};

enum class ReduceOp { kSum, kMean, kMax, kMin };

/// A group of ranks. Every rank must call the same operations in the same order, from one thread at a time.
/// Errors (kPeer): a lost or failed rank, named; the group is aborted then.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int64_t rank() const = 0;
  virtual int64_t size() const = 0;

  /// In place. REQUIRES a contiguous tensor of equal shape and type on every rank, on the group's device.
  virtual void all_reduce(at::Tensor tensor, ReduceOp op = ReduceOp::kSum) = 0;
  virtual std::unique_ptr<PendingOperation> all_reduce_async(at::Tensor tensor,
                                                             ReduceOp op = ReduceOp::kSum) = 0;
  /// Concatenates every rank's equal-shaped tensor along dimension 0, in rank order.
  virtual at::Tensor all_gather(const at::Tensor& tensor) = 0;
  /// Sums over ranks, then gives rank r the r-th slice of dimension 0. REQUIRES dimension 0 divisible by
  /// size().
  virtual at::Tensor reduce_scatter(const at::Tensor& tensor) = 0;
  virtual void broadcast(at::Tensor tensor, int64_t root = 0) = 0;
  virtual void barrier() = 0;
  /// Throws when a rank is known to have failed. Cheap (no communication); call it before making results
  /// durable.
  virtual void check() = 0;
  /// Ends the group for every rank, giving `reason` (which names this rank) to those who wait. Never throws.
  virtual void abort(const std::string& reason) = 0;
};

/// How failures of other ranks are noticed. Every rank beats once per `heartbeat_seconds`; a rank silent for
/// `lost_after_seconds` is lost; a rank that then does not leave within `grace_seconds` is ended with
/// status 3.
struct CollectiveConfig {
  double join_seconds = 300;
  double timeout_seconds = 1800;
  double heartbeat_seconds = 1;
  double lost_after_seconds = 4;
  double grace_seconds = 2;

  void fields(Fields& f);
  void validate() const;
};

/// The group of one.
std::unique_ptr<Collective> make_solo_collective();

/// Joins the group that `environment` describes: solo for one rank, Gloo for a CPU, NCCL for a CUDA device.
/// Blocks until every rank has joined. Errors (kPeer): a rank that does not come, no rendezvous.
std::unique_ptr<Collective> make_collective(const RankEnvironment& environment, at::Device device,
                                            const CollectiveConfig& config = {});

/// Runs one rank's work; if it throws, tells the others why (naming this rank) and throws on.
void run_rank(Collective& collective, const std::function<void()>& work);

}  // namespace fathom
