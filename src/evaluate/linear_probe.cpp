#include <torch/torch.h>

#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "evaluate/classification.h"

namespace fathom {
namespace {

/// Weights [K, D + 1]; the last column is the bias.
struct LinearClassifier {
  at::Tensor weight_KD;

  at::Tensor scores(const at::Tensor& feature_ND) const {
    return at::addmm(weight_KD.select(1, -1), feature_ND, weight_KD.slice(1, 0, -1).t());
  }
};

at::Tensor objective(const LinearClassifier& classifier, const LabelledFeatures& data, double strength) {
  const auto weights = classifier.weight_KD.slice(1, 0, -1);
  return at::cross_entropy_loss(classifier.scores(data.feature_ND), data.label_N) +
         0.5 * strength * weights.square().sum();
}

/// Minimises the (convex) objective from where `classifier` stands.
void fit(LinearClassifier& classifier, const LabelledFeatures& data, double strength,
         int64_t max_iterations) {
  const torch::AutoGradMode with_gradients(true);
  classifier.weight_KD = classifier.weight_KD.detach().clone().requires_grad_();
  torch::optim::LBFGS optimizer({classifier.weight_KD}, torch::optim::LBFGSOptions(1.0)
                                                            .max_iter(max_iterations)
                                                            .tolerance_grad(1e-7)
                                                            .line_search_fn("strong_wolfe"));
  optimizer.step([&] {
    optimizer.zero_grad();
    const auto loss = objective(classifier, data, strength);
    loss.backward();
    return loss;
  });
  classifier.weight_KD = classifier.weight_KD.detach();
}

LinearClassifier start(int64_t num_classes, const at::Tensor& feature_ND) {
  return {at::zeros({num_classes, feature_ND.size(1) + 1}, feature_ND.options())};
}

/// Mean and deviation of the training part; a constant feature is left without scale.
struct Standardiser {
  at::Tensor mean_D, deviation_D;

  explicit Standardiser(const at::Tensor& feature_ND)
      : mean_D(feature_ND.mean(0)), deviation_D(feature_ND.std(0, /*unbiased=*/false)) {
    deviation_D.masked_fill_(deviation_D.lt(1e-12), 1.0);
  }
  LabelledFeatures operator()(const LabelledFeatures& data) const {
    return {(data.feature_ND.to(at::kCPU, at::kDouble) - mean_D) / deviation_D, data.label_N.to(at::kCPU)};
  }
};

/// The training part cut in two by a seeded permutation: a tenth to choose by, the rest to learn from.
std::pair<LabelledFeatures, LabelledFeatures> hold_back(const LabelledFeatures& data, int64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(data.label_N.size(0)));
  std::iota(order.begin(), order.end(), 0);
  Random({static_cast<uint64_t>(seed)}).shuffle(order);
  const auto order_N = torch::tensor(order, at::kLong);
  const int64_t held = data.label_N.size(0) / 10;
  const auto take = [&](const at::Tensor& index) {
    return LabelledFeatures{data.feature_ND.index_select(0, index), data.label_N.index_select(0, index)};
  };
  return {take(order_N.slice(0, held)), take(order_N.slice(0, 0, held))};
}

double choose_strength(const LabelledFeatures& data, int64_t num_classes, const ProbeOptions& options) {
  if (options.strengths.size() == 1) return options.strengths.front();
  const auto [learn, choose] = hold_back(data, options.seed);
  std::vector<double> falling = options.strengths;  // each fit starts from the stronger one before
  std::sort(falling.rbegin(), falling.rend());
  LinearClassifier classifier = start(num_classes, learn.feature_ND);
  double best_strength = falling.front(), best_accuracy = -1;
  for (const double strength : falling) {
    fit(classifier, learn, strength, options.max_iterations);
    const double accuracy = score_classes(classifier.scores(choose.feature_ND), choose.label_N).accuracy;
    if (accuracy > best_accuracy) {
      best_accuracy = accuracy;
      best_strength = strength;
    }
  }
  return best_strength;
}

}  // namespace

ClassificationReport linear_probe(const LabelledFeatures& train, const LabelledFeatures& test,
                                  int64_t num_classes, const ProbeOptions& options) {
  if (num_classes < 2)
    fail(ErrorKind::kData, "a linear probe needs at least two classes, got {}", num_classes);
  if (train.label_N.size(0) < 10 || test.label_N.size(0) < 1)
    fail(ErrorKind::kData,
         "a linear probe needs at least 10 images to train on and 1 to test on, got {} and {}",
         train.label_N.size(0), test.label_N.size(0));
  const Standardiser standardise(train.feature_ND.to(at::kCPU, at::kDouble));
  const LabelledFeatures learned = standardise(train);
  const double strength = choose_strength(learned, num_classes, options);
  LinearClassifier classifier = start(num_classes, learned.feature_ND);
  fit(classifier, learned, strength, options.max_iterations);
  const LabelledFeatures tested = standardise(test);
  ClassificationReport report = score_classes(classifier.scores(tested.feature_ND), tested.label_N);
  report.task = "linear_probe";
  return report;
}

}  // namespace fathom
