#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "dist/bodies.h"
#include "dist/ranks.h"
#include "distributed/data_parallel.h"

namespace fathom::test {
namespace {

constexpr int64_t kGlobalBatch = 12;

/// Rows of a table, the first of which learn: as a language model's embedding does.
struct FirstRows : torch::autograd::Function<FirstRows> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& table, int64_t count,
                            GradientRooms* rooms) {
    context->saved_data["rooms"] = reinterpret_cast<int64_t>(rooms);
    context->save_for_backward({table});
    return table.narrow(0, 0, count).clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::Tensor table = context->get_saved_variables()[0], rows = grads[0];
    auto* rooms = reinterpret_cast<GradientRooms*>(context->saved_data["rooms"].toInt());
    const auto add = [rows](const at::Tensor& sum) { sum.narrow(0, 0, rows.size(0)).add_(rows); };
    at::Tensor sum = rooms != nullptr ? rooms->take(table) : at::Tensor();
    if (!sum.defined() && rooms != nullptr && rooms->add(table, add)) return {{}, {}, {}};
    sum = sum.defined() ? sum.zero_() : at::zeros_like(table);
    add(sum);
    return {sum, {}, {}};
  }
};

/// A product whose backward pass writes the weight's gradient where it is to lie.
struct LentProduct : torch::autograd::Function<LentProduct> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, GradientRooms* rooms) {
    context->save_for_backward({x, weight});
    context->saved_data["rooms"] = reinterpret_cast<int64_t>(rooms);
    return at::mm(x, weight.t());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto* rooms = reinterpret_cast<GradientRooms*>(context->saved_data["rooms"].toInt());
    const at::Tensor found = at::mm(grads[0].t(), saved[0]),
                     room = rooms != nullptr ? rooms->take(saved[1]) : at::Tensor();
    return {at::mm(grads[0], saved[1]), room.defined() ? room.copy_(found) : found, {}};
  }
};

/// A stack of layers with what makes reduction hard: one layer used twice, one unused, one frozen, a table of
/// which rows learn, and two that are layers besides, one of them lent its place.
struct Model : torch::nn::Module {
  explicit Model(int64_t num_layers = 4) {
    for (int64_t i = 0; i < num_layers; ++i) layers->push_back(torch::nn::Linear(8, 8));
    register_module("layers", layers);
    register_module("unused", unused);
    register_module("frozen", frozen);
    register_module("table", table);
    register_module("tied", tied);
    register_module("lent", lent);
    to(rank_device(), at::kDouble);
    frozen->weight.set_requires_grad(false);
    frozen->bias.set_requires_grad(false);
  }

  at::Tensor forward(const at::Tensor& x_BD) {
    at::Tensor y_BD = layers[0]->as<torch::nn::Linear>()->forward(x_BD).tanh();
    for (const torch::nn::Linear& some : {table, tied, lent})
      y_BD = y_BD + FirstRows::apply(some->weight, 3, rooms).sum(0);
    for (const auto& layer : *layers) y_BD = layer->as<torch::nn::Linear>()->forward(y_BD).tanh();
    return frozen->forward(LentProduct::apply(tied->forward(y_BD), lent->weight, rooms));
  }

  GradientReducer::NamedParameters named() const {
    GradientReducer::NamedParameters result;
    for (const auto& item : named_parameters()) result.emplace_back(item.key(), item.value());
    return result;
  }

  torch::nn::ModuleList layers;
  torch::nn::Linear unused{8, 8};
  torch::nn::Linear frozen{8, 8};
  torch::nn::Linear table{torch::nn::LinearOptions(8, 8).bias(false)};
  torch::nn::Linear tied{torch::nn::LinearOptions(8, 8).bias(false)};
  torch::nn::Linear lent{torch::nn::LinearOptions(8, 8).bias(false)};
  GradientRooms* rooms = nullptr;
};

at::Tensor batch_of_step(int64_t step) {
  torch::manual_seed(100 + step);
  return torch::randn({kGlobalBatch, 8}, at::kDouble).to(rank_device());
}

at::Tensor share_of_mean(Model& model, const at::Tensor& x_BD) {
  return model.forward(x_BD).square().sum() / kGlobalBatch;
}

/// One optimizer-less step of this rank over `num_micro_batches` parts of its share.
void run_step(Model& model, GradientReducer& reducer, const Collective& collective, int64_t step,
              int64_t num_micro_batches) {
  model.rooms = &reducer;
  const int64_t own = kGlobalBatch / collective.size(), part = own / num_micro_batches;
  const at::Tensor x_BD = batch_of_step(step).narrow(0, collective.rank() * own, own);
  reducer.zero();
  for (int64_t i = 0; i < num_micro_batches; ++i) {
    if (i + 1 == num_micro_batches) reducer.expect_last_backward();
    share_of_mean(model, x_BD.narrow(0, i * part, part)).backward();
  }
  reducer.finish();
}

std::unique_ptr<Model> make_model(int64_t seed) {
  torch::manual_seed(seed);
  return std::make_unique<Model>();
}

}  // namespace

void check_reduced_gradients(Collective& collective) {
  auto model = make_model(1), truth = make_model(1);
  GradientReducer reducer(collective, model->named(), {.bucket_mb = 0.001});
  FATHOM_CHECK(reducer.buckets().size() > 2, "the test wants several buckets");
  for (int64_t step = 0; step < 3; ++step) {
    run_step(*model, reducer, collective, step, 1 + step % 2);
    truth->zero_grad();
    share_of_mean(*truth, batch_of_step(step)).backward();
    for (const auto& item : truth->named_parameters()) {
      const at::Tensor gradient = model->named_parameters()[item.key()].grad();
      if (!item.value().requires_grad()) {
        FATHOM_CHECK(!gradient.defined(), "'{}' is frozen but has a gradient", item.key());
        continue;
      }
      const at::Tensor expected =
          item.value().grad().defined() ? item.value().grad() : at::zeros_like(item.value());
      const double error = (gradient - expected).abs().max().item<double>();
      FATHOM_CHECK(error < 1e-12, "step {}: the gradient of '{}' is off by {}", step, item.key(), error);
      const bool is_used = item.key().find("unused") == std::string::npos;
      FATHOM_CHECK((expected.abs().max().item<double>() > 1e-6) == is_used, "'{}' does not test anything",
                   item.key());
    }
  }
}

void check_repeatability(Collective& collective) {
  std::vector<at::Tensor> first_run;
  for (int run = 0; run < 2; ++run) {
    auto model = make_model(2);
    GradientReducer reducer(collective, model->named(), {.bucket_mb = 0.001});
    std::vector<at::Tensor> gradients;
    for (int64_t step = 0; step < 3; ++step) {
      run_step(*model, reducer, collective, step, 2);
      for (const at::Tensor& bucket : reducer.buckets()) gradients.push_back(bucket.clone());
    }
    if (run == 0) first_run = gradients;
    for (size_t i = 0; i < gradients.size(); ++i) {
      FATHOM_CHECK(at::equal(gradients[i], first_run[i]), "bucket {} differs from the first run", i);
      at::Tensor highest = gradients[i].clone();
      collective.all_reduce(highest, ReduceOp::kMax);
      FATHOM_CHECK(at::equal(gradients[i], highest), "bucket {} differs between ranks", i);
    }
  }
}

namespace {

/// Passes everything on and keeps the asynchronous reductions.
class Recorder final : public Collective {
 public:
  explicit Recorder(Collective& inner) : inner_(inner) {}
  int64_t rank() const override { return inner_.rank(); }
  int64_t size() const override { return inner_.size(); }
  void all_reduce(at::Tensor tensor, ReduceOp op) override { inner_.all_reduce(tensor, op); }
  std::unique_ptr<PendingOperation> all_reduce_async(at::Tensor tensor, ReduceOp op) override {
    struct Shared final : PendingOperation {
      explicit Shared(std::shared_ptr<PendingOperation> o) : operation(std::move(o)) {}
      void wait() override { operation->wait(); }
      std::shared_ptr<PendingOperation> operation;
    };
    sent.emplace_back(inner_.all_reduce_async(tensor, op));
    return std::make_unique<Shared>(sent.back());
  }
  at::Tensor all_gather(const at::Tensor& tensor) override { return inner_.all_gather(tensor); }
  at::Tensor reduce_scatter(const at::Tensor& tensor) override { return inner_.reduce_scatter(tensor); }
  void broadcast(at::Tensor tensor, int64_t root) override { inner_.broadcast(tensor, root); }
  void barrier() override { inner_.barrier(); }
  void check() override { inner_.check(); }
  void abort(const std::string& reason) override { inner_.abort(reason); }

  std::vector<std::shared_ptr<PendingOperation>> sent;

 private:
  Collective& inner_;
};

}  // namespace

void check_overlap(Collective& collective) {
  Recorder recorder(collective);
  auto model = make_model(3);
  GradientReducer reducer(recorder, model->named(), {.bucket_mb = 0.001});
  int64_t num_done_in_backward = 0;
  for (int64_t step = 0; step < 3; ++step) {
    recorder.sent.clear();
    num_done_in_backward = 0;
    reducer.zero();
    at::Tensor x_BD = batch_of_step(step).narrow(0, collective.rank(), 1).requires_grad_();
    // The gradient of the input is the last thing that backward computes: whatever can be waited for there
    // has been exchanged while backward still ran.
    x_BD.register_hook([&](const at::Tensor& gradient) {
      for (const auto& operation : recorder.sent) operation->wait();
      num_done_in_backward = static_cast<int64_t>(recorder.sent.size());
      return gradient;
    });
    reducer.expect_last_backward();
    share_of_mean(*model, x_BD).backward();
    reducer.finish();
    FATHOM_CHECK(recorder.sent.size() == reducer.buckets().size(), "{} buckets were sent, expected {}",
                 recorder.sent.size(), reducer.buckets().size());
  }
  FATHOM_CHECK(reducer.num_overlapped_buckets() >= 1, "no bucket left before backward ended");
  FATHOM_CHECK(num_done_in_backward >= 1, "no bucket was exchanged before backward ended");
}

void check_broadcast_at_start(Collective& collective) {
  auto model = make_model(10 + collective.rank());
  at::Tensor transposed = torch::full({2, 3}, static_cast<double>(collective.rank())).t();
  auto parameters = model->named();
  parameters.emplace_back("transposed", transposed);
  GradientReducer reducer(collective, parameters);
  const auto expected = make_model(10);
  for (const auto& item : expected->named_parameters()) {
    FATHOM_CHECK(at::equal(item.value(), model->named_parameters()[item.key()]), "'{}' is not rank 0's",
                 item.key());
  }
  FATHOM_CHECK(transposed.eq(0).all().item<bool>(), "a transposed tensor is not rank 0's");
}

void check_different_models(Collective& collective) {
  Model model(collective.rank() == 0 ? 3 : 4);
  GradientReducer reducer(collective, model.named());
}

void check_growing_use(Collective& collective) {
  at::Tensor early = torch::ones({4}, torch::requires_grad()),
             late = torch::ones({4}, torch::requires_grad());
  GradientReducer reducer(collective, {{"early", early}, {"late", late}}, {.bucket_mb = 0.001});
  for (int step = 0; step < 3; ++step) {
    reducer.zero();
    reducer.expect_last_backward();
    (early + late).sum().backward();
    if (step == 2) late.sum().backward();  // a second contribution, when its bucket has left
    reducer.finish();
  }
}

void check_late_use(Collective& collective) {
  at::Tensor steady = torch::ones({4}, torch::requires_grad()),
             idle = torch::ones({4}, torch::requires_grad());
  GradientReducer reducer(collective, {{"steady", steady}, {"idle", idle}}, {.bucket_mb = 0.00001});
  for (int step = 0; step < 4; ++step) {
    reducer.zero();
    reducer.expect_last_backward();
    const bool uses_idle = step >= 2 && collective.rank() == 1;
    (uses_idle ? steady * 2 + idle * 3 : steady * 2).sum().backward();
    reducer.finish();
    FATHOM_CHECK(steady.grad().eq(2.0 * collective.size()).all().item<bool>(), "step {}: wrong sum", step);
    FATHOM_CHECK(idle.grad().eq(step >= 2 ? 3.0 : 0.0).all().item<bool>(), "step {}: late use was lost",
                 step);
  }
  FATHOM_CHECK(reducer.num_overlapped_buckets() == 1, "the idle parameter holds the other one up");
}

void check_lent_twice(Collective& collective) {
  const auto options = torch::dtype(torch::kDouble).device(rank_device()).requires_grad(true);
  at::Tensor once = torch::ones({4, 4}, options), twice = torch::full({4, 4}, 0.5, options);
  GradientReducer reducer(collective, {{"once", once}, {"twice", twice}}, {.bucket_mb = 0.00001});
  const at::Tensor x_BD = torch::ones({2, 4}, options).detach();
  for (int step = 0; step < 3; ++step) {
    reducer.zero();
    reducer.expect_last_backward();
    const at::Tensor y_BD = LentProduct::apply(x_BD, once, &reducer);
    LentProduct::apply(LentProduct::apply(y_BD, twice, &reducer), twice, &reducer).sum().backward();
    reducer.finish();
    const auto expected = torch::autograd::grad(
        {at::mm(at::mm(at::mm(x_BD, once.t()), twice.t()), twice.t()).sum()}, {once, twice});
    const auto sum = static_cast<double>(collective.size());
    FATHOM_CHECK(at::allclose(once.grad(), expected[0] * sum), "step {}: wrong sum", step);
    FATHOM_CHECK(at::allclose(twice.grad(), expected[1] * sum), "step {}: wrong sum of two uses", step);
  }
  FATHOM_CHECK(reducer.num_overlapped_buckets() == 2, "the second use holds a bucket up");
}

TEST(GradientReducer, EqualsOneProcess) {
  expect_success(run_ranks(2, "check_reduced_gradients"));
  expect_success(run_ranks(3, "check_reduced_gradients"));
}
TEST(GradientReducer, RepeatsItself) {
  expect_success(run_ranks(3, "check_repeatability"));
}
TEST(GradientReducer, OverlapsBackward) {
  expect_success(run_ranks(2, "check_overlap"));
}
TEST(GradientReducer, StartsFromTheFirstRanksValues) {
  expect_success(run_ranks(2, "check_broadcast_at_start"));
}

TEST(GradientReducer, HandlesParametersThatComeIntoUseLater) {
  expect_success(run_ranks(2, "check_late_use"));
}

TEST(GradientReducer, SendsWhatIsLentAPlaceAndUsedTwiceDuringBackward) {
  expect_success(run_ranks(2, "check_lent_twice"));
}

TEST(GradientReducer, RefusesDifferentModels) {
  for (const auto& outcome : run_ranks(2, "check_different_models")) {
    EXPECT_EQ(outcome.status, 3);
    EXPECT_THAT(outcome.errors, testing::HasSubstr("ranks hold different models"));
  }
}

TEST(GradientReducer, RefusesContributionsAfterABucketLeft) {
  for (const auto& outcome : run_ranks(2, "check_growing_use")) {
    EXPECT_EQ(outcome.status, 3);
    EXPECT_THAT(outcome.errors, testing::HasSubstr("'late' received contribution 2"));
  }
}

}  // namespace fathom::test
