// S samples of the data set, N of a step over all ranks, L texts of them, D width of their embeddings.
#include "train/task/hard_negatives.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "nn/temperature.h"
#include "train/task/neighbour_order.h"

namespace fathom {
namespace {

constexpr int64_t kLongestLead = 32;
constexpr uint64_t kPoolStream = 0x4e67;
constexpr uint64_t kGroupStream = 0x4e68;
constexpr const char* kOrderPrefix = "order.";

}  // namespace

void HardNegativeConfig::fields(Fields& f) {
  f("refresh", refresh, "steps between refreshes of the bank of text embeddings; 0 switches all of this off",
    {.low = 0});
  f("momentum", momentum, "share of a sample's old embedding that a step keeps", {.low = 0, .high = 0.999});
  f("group", group,
    "samples with similar texts that an epoch's order puts side by side in one batch, which it must divide; "
    "1 "
    "leaves the order random",
    {.low = 1, .high = 1024});
  f("max_similarity", max_similarity, "pairs whose texts are more similar are no negatives; 1 keeps all",
    {.low = 0, .high = 1});
  f("sharpness", sharpness,
    "a negative weighs in proportion to the exponential of this times its text's similarity, on average 1; 0 "
    "weighs all alike",
    {.low = 0, .high = 100});
}

void HardNegativeConfig::validate() const {
  if (refresh == 0 && (group > 1 || max_similarity < 1 || sharpness > 0))
    fail(ErrorKind::kConfig, "group, max_similarity and sharpness need a bank: set refresh");
}

HardNegatives::HardNegatives(const Setup& setup)
    : setup_(setup),
      batches_per_epoch_(std::max<int64_t>(1, setup.num_samples / std::max<int64_t>(1, setup.batch_size))),
      lead_(std::min(kLongestLead, batches_per_epoch_)),
      moving_SD_(at::zeros({setup.num_samples, setup.dim}, setup.options)),
      bank_SD_(at::zeros_like(moving_SD_)) {}

void HardNegatives::observe(const at::Tensor& owner_N, const at::Tensor& text_LD) {
  const torch::NoGradGuard no_grad;
  const int64_t samples = owner_N.size(0);
  const at::Tensor text_ND = unit_length(text_LD.detach().view({samples, -1, setup_.dim}).mean(1));
  // A sample that stands in the batch twice gets the mean of both in either place, so that it does not matter
  // which is written last.
  const at::Tensor same_NN = owner_N.unsqueeze(1).eq(owner_N.unsqueeze(0)).to(text_ND.scalar_type());
  const at::Tensor mean_ND = at::mm(same_NN, text_ND) / same_NN.sum(1, true);
  const at::Tensor old_ND = moving_SD_.index_select(0, owner_N);
  const at::Tensor seen_N1 = old_ND.ne(0).any(1, true);
  const at::Tensor moved_ND = setup_.config.momentum * old_ND + (1 - setup_.config.momentum) * mean_ND;
  moving_SD_.index_copy_(0, owner_N, at::where(seen_N1, moved_ND, mean_ND).to(moving_SD_.scalar_type()));
}

void HardNegatives::apply(PairLabels& labels, const at::Tensor& owner_R, const at::Tensor& owner_C) const {
  if (setup_.config.max_similarity >= 1 && setup_.config.sharpness == 0) return;
  const at::Tensor similarity_RC =
      at::mm(bank_SD_.index_select(0, owner_R), bank_SD_.index_select(0, owner_C).t());
  if (setup_.config.max_similarity < 1)
    labels.negative_RC = labels.negative_RC.logical_and(similarity_RC.le(setup_.config.max_similarity));
  if (setup_.config.sharpness > 0) weigh_negatives(labels, similarity_RC, setup_.config.sharpness);
}

void HardNegatives::refresh() {
  const torch::NoGradGuard no_grad;
  const at::Tensor seen_S1 = moving_SD_.ne(0).any(1, true).to(moving_SD_.scalar_type());
  const at::Tensor mean_1D = moving_SD_.sum(0, true) / seen_S1.sum().clamp_min(1);
  bank_SD_.copy_(unit_length(moving_SD_ - mean_1D) * seen_S1);
}

void HardNegatives::after_step(const StepContext& step) {
  const int64_t done = step.step + 1;
  if (done % setup_.config.refresh == 0) refresh();
  std::erase_if(orders_, [&](const auto& entry) { return entry.first < done / batches_per_epoch_; });
  if (setup_.config.group > 1 && (done + lead_) % batches_per_epoch_ == 0)
    fix_order((done + lead_) / batches_per_epoch_, step.collective);
}

void HardNegatives::fix_order(int64_t epoch, Collective& collective) {
  at::Tensor order_S = at::arange(setup_.num_samples, at::kLong);
  if (collective.rank() == 0) {
    const auto key = [&](uint64_t stream) {
      return mix_seed({static_cast<uint64_t>(setup_.seed), static_cast<uint64_t>(epoch), stream});
    };
    std::vector<int64_t> order(static_cast<size_t>(setup_.num_samples));
    std::iota(order.begin(), order.end(), int64_t{0});
    Random(key(kPoolStream)).shuffle(order);
    order = group_neighbours(order, bank_SD_.to(at::kCPU),
                             {.group = setup_.config.group,
                              .max_similarity = setup_.config.max_similarity,
                              .key = key(kGroupStream)});
    order_S = torch::tensor(order, at::kLong);
  }
  order_S = order_S.to(bank_SD_.device());
  collective.broadcast(order_S);
  orders_[epoch] = order_S.to(at::kCPU);
}

std::vector<int64_t> HardNegatives::order(int64_t epoch, std::vector<int64_t> seeded) const {
  const auto found = orders_.find(epoch);
  if (found == orders_.end()) return seeded;
  const int64_t* begin = found->second.const_data_ptr<int64_t>();
  return {begin, begin + found->second.numel()};
}

TensorMap HardNegatives::state() const {
  TensorMap state = {{"moving", moving_SD_}, {"bank", bank_SD_}};
  for (const auto& [epoch, order_S] : orders_) state[kOrderPrefix + std::to_string(epoch)] = order_S;
  return state;
}

void HardNegatives::load_state(const TensorMap& state) {
  if (!state.contains("bank")) return;
  const torch::NoGradGuard no_grad;
  const auto fetch = [&](const char* name, at::Tensor& into) {
    const auto found = state.find(name);
    if (found == state.end() || found->second.sizes() != into.sizes())
      fail(ErrorKind::kCheckpoint, "hard negatives: {} is {}", name,
           found == state.end() ? "absent" : "of another data set or width");
    into.copy_(found->second);
  };
  fetch("moving", moving_SD_);
  fetch("bank", bank_SD_);
  orders_.clear();
  for (const auto& [name, tensor] : state) {
    if (!name.starts_with(kOrderPrefix)) continue;
    if (tensor.numel() != setup_.num_samples || tensor.scalar_type() != at::kLong)
      fail(ErrorKind::kCheckpoint, "hard negatives: {} is of another data set", name);
    orders_[std::stoll(name.substr(std::string(kOrderPrefix).size()))] = tensor.to(at::kCPU).contiguous();
  }
}

}  // namespace fathom
