// The group of one: every operation is the identity.
#include "base/error.h"
#include "distributed/collective.h"

namespace fathom {
namespace {

class FinishedOperation final : public PendingOperation {
 public:
  void wait() override {}
};

class SoloCollective final : public Collective {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 1; }
  void all_reduce(at::Tensor, ReduceOp) override {}
  std::unique_ptr<PendingOperation> all_reduce_async(at::Tensor, ReduceOp) override {
    return std::make_unique<FinishedOperation>();
  }
  at::Tensor all_gather(const at::Tensor& tensor) override {
    return tensor.dim() == 0 ? tensor.reshape({1}).clone() : tensor.clone();
  }
  at::Tensor reduce_scatter(const at::Tensor& tensor) override { return tensor.clone(); }
  void broadcast(at::Tensor, int64_t root) override {
    FATHOM_CHECK(root == 0, "[broadcast] expected root 0 in a group of one, got {}", root);
  }
  void barrier() override {}
  void check() override {}
  void abort(const std::string&) override {}
};

}  // namespace

std::unique_ptr<Collective> make_solo_collective() {
  return std::make_unique<SoloCollective>();
}

}  // namespace fathom
