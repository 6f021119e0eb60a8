#include "train/step_recorder.h"

#include <torch/torch.h>

#include <algorithm>

namespace fathom {
namespace {

constexpr int64_t kLaunchesBeforeRecording = 2;
/// Texts padded to a few lengths need a few; batches that all differ are better launched.
constexpr size_t kMostRecordings = 8;

std::vector<at::Tensor*> tensors_of(std::vector<MicroBatch>& micro_batches) {
  std::vector<at::Tensor*> tensors;
  for (MicroBatch& micro_batch : micro_batches) {
    for (at::Tensor* tensor : micro_batch.batch.tensors()) tensors.push_back(tensor);
    tensors.push_back(&micro_batch.forward.key_B);
  }
  return tensors;
}

bool same_shape(const at::Tensor& a, const at::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() ||
         (a.sizes() == b.sizes() && a.strides() == b.strides() && a.scalar_type() == b.scalar_type());
}

bool same_shapes(std::vector<MicroBatch> a, std::vector<MicroBatch> b) {
  const std::vector<at::Tensor*> in_a = tensors_of(a), in_b = tensors_of(b);
  return std::equal(in_a.begin(), in_a.end(), in_b.begin(), in_b.end(),
                    [](const at::Tensor* x, const at::Tensor* y) { return same_shape(*x, *y); });
}

void copy_into(std::vector<MicroBatch> from, std::vector<MicroBatch>& to) {
  const torch::NoGradGuard no_grad;
  const std::vector<at::Tensor*> sources = tensors_of(from), targets = tensors_of(to);
  for (size_t i = 0; i < sources.size(); ++i)
    if (sources[i]->defined()) targets[i]->copy_(*sources[i]);
}

}  // namespace

/// Null for a new shape when there are enough: every recording keeps a batch on the device.
StepRecorder::Recording* StepRecorder::find(const std::vector<MicroBatch>& inputs) {
  for (Recording& recording : recordings_)
    if (same_shapes(recording.inputs, inputs)) return &recording;
  if (recordings_.size() == kMostRecordings) return nullptr;
  Recording& added = recordings_.emplace_back();
  added.inputs = inputs;
  for (at::Tensor* tensor : tensors_of(added.inputs))
    if (tensor->defined()) *tensor = tensor->clone();
  return &added;
}

/// False where the device has no graphs.
bool StepRecorder::record(Recording& recording, const Work& work) {
  DeviceGraph* beside = nullptr;
  for (Recording& other : recordings_)
    if (other.graph) beside = other.graph.get();
  std::unique_ptr<DeviceGraph> graph = runtime_.make_graph(beside);
  if (!graph) return false;
  runtime_.release_cached_memory();
  graph->capture([&] { recording.outputs = work(recording.inputs); });
  recording.graph = std::move(graph);
  ++num_recordings_;
  return true;
}

void StepRecorder::disable() {
  enabled_ = false;
  recordings_.clear();
}

std::vector<at::Tensor> StepRecorder::run(const std::vector<MicroBatch>& inputs, const Work& work,
                                          int64_t kind) {
  if (!enabled_) return work(inputs);
  if (kind != kind_) recordings_.clear();
  kind_ = kind;
  Recording* recording = find(inputs);
  if (recording == nullptr) return work(inputs);
  if (!recording->graph) {
    if (recording->num_launched++ < kLaunchesBeforeRecording) return work(inputs);
    if (!record(*recording, work)) {
      enabled_ = false;
      return work(inputs);
    }
  }
  copy_into(inputs, recording->inputs);
  recording->graph->replay();
  return recording->outputs;
}

}  // namespace fathom
