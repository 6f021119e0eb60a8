// Data parallelism: gradients summed over ranks, in buckets, while backward still runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"
#include "distributed/collective.h"
#include "tensor/gradient_rooms.h"

namespace fathom {

enum class GradientType { kFloat32, kParameter };

struct DataParallelConfig {
  double bucket_mb = 25;
  GradientType gradient_type = GradientType::kFloat32;
  bool side_stream = true;

  void fields(Fields& f);
};

/// Sums gradients over all ranks. Gradients are views into flat buckets: a step's first contribution to one
/// is copied there as it comes, or is written there (`take`), further ones are added (autograd, `add`);
/// nothing is copied after the exchange, and before it, in `finish`, only what had to wait for a place that a
/// forward pass had taken. A bucket is sent as soon as its last gradient is complete, always in the same
/// order (Li et al., "PyTorch Distributed", VLDB 2020, section 3.2). A group of one takes the same path
/// without sending, and copies small ones together in `finish`.
///
/// Gradients are SUMMED: each rank's loss must be its share of the mean over the global batch (sum over its
/// samples divided by the global count), so that the sum over ranks is the gradient of the global mean.
/// Parameters that took no part in the loss get zeros; those with `requires_grad() == false` at construction
/// are left out.
///
///   reducer.zero();
///   for (each micro-batch) { if (last) reducer.expect_last_backward(); loss.backward(); }
///   reducer.finish();
///
/// Floating-point gradients narrower than FP32 are kept in FP32 unless `gradient_type` is kParameter (FP64
/// stays). One reducer a parameter set; not thread-safe beyond autograd's own threads. Must outlive backward
/// passes.
class GradientReducer : public GradientRooms {
 public:
  using NamedParameters = std::vector<std::pair<std::string, at::Tensor>>;

  /// Broadcasts rank 0's values of all `parameters`, frozen ones included, so that every rank starts equal.
  /// Errors (kInternal): ranks whose parameters differ in number or size.
  GradientReducer(Collective& collective, NamedParameters parameters, const DataParallelConfig& config = {});
  ~GradientReducer() override;
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Forgets every gradient. Call it instead of an optimizer's `zero_grad`, before the step's forward passes,
  /// which may `take` places.
  void zero();
  /// Of a parameter that has got no gradient since `zero`: its place in its bucket, once. Begins at a
  /// multiple of 16 bytes.
  at::Tensor take(const at::Tensor& parameter) override;
  /// Takes what comes behind another contribution of the step: waits for what `take` has lent to come back,
  /// or for `finish`. In larger groups, in the step's last pass, only what waits so: ranks count the rest.
  bool add(const at::Tensor& parameter, std::function<void(const at::Tensor& gradient)> add) override;
  /// On a GPU, in a group of one, where nothing leaves before `finish`.
  SideStream* side() override;
  /// The next backward is the step's last: buckets may leave as they fill.
  void expect_last_backward();
  /// Sends what has not left, waits for everything. Afterwards every parameter has its gradient in its
  /// bucket, and every rank holds the same sums.
  void finish();

  /// The flat gradients, with zeros behind those of odd sizes. Valid between `finish` and `zero`.
  const std::vector<at::Tensor>& buckets() const;
  /// Buckets of the last step that were sent before backward ended: how much of the exchange was overlapped.
  int64_t num_overlapped_buckets() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom
