#include "evaluate/retrieval.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace fathom {
namespace {

/// Two scores closer than this share of |image| · |text| are a tie: the rounding of float32 embeddings.
constexpr double kTieShare = 0x1p-23;

void check_input(const RetrievalInput& input, const at::Tensor& owner_C) {
  FATHOM_CHECK(input.image_ID.dim() == 2 && input.text_CD.dim() == 2 &&
                   input.image_ID.size(1) == input.text_CD.size(1),
               "[retrieval] expected image [I, D] and text [C, D] embeddings, got {} and {} dimensions",
               input.image_ID.dim(), input.text_CD.dim());
  FATHOM_CHECK(owner_C.dim() == 1 && owner_C.size(0) == input.text_CD.size(0),
               "[retrieval] expected one image number for each of {} captions", input.text_CD.size(0));
  FATHOM_CHECK(owner_C.numel() == 0 || (owner_C.min().item<int64_t>() >= 0 &&
                                        owner_C.max().item<int64_t>() < input.image_ID.size(0)),
               "[retrieval] expected image numbers below {}", input.image_ID.size(0));
}

/// The scores that wrong candidates are held against, with the margin for ties taken off.
struct RightScores {
  at::Tensor t2i_C;  ///< each caption with its image
  at::Tensor i2t_I;  ///< each image with its best caption
};

RightScores right_scores(const RetrievalInput& input, const at::Tensor& owner_C, int64_t block) {
  const int64_t captions = input.text_CD.size(0);
  std::vector<at::Tensor> scores;
  for (int64_t start = 0; start < captions; start += block) {
    const int64_t end = std::min(captions, start + block);
    const auto text = input.text_CD.slice(0, start, end).to(at::kDouble);
    const auto image = input.image_ID.index_select(0, owner_C.slice(0, start, end)).to(at::kDouble);
    scores.push_back((text * image).sum(1) - kTieShare * text.norm(2, 1) * image.norm(2, 1));
  }
  RightScores right{.t2i_C = at::cat(scores)};
  right.i2t_I =
      at::full({input.image_ID.size(0)}, -std::numeric_limits<double>::infinity(), right.t2i_C.options());
  right.i2t_I.scatter_reduce_(0, owner_C, right.t2i_C, "amax");
  return right;
}

std::vector<int64_t> to_vector(const at::Tensor& values) {
  const auto cpu = values.to(at::kCPU).contiguous();
  return {cpu.const_data_ptr<int64_t>(), cpu.const_data_ptr<int64_t>() + cpu.numel()};
}

RecallFigures mean_chance(const std::vector<int64_t>& right_of_query, int64_t candidates) {
  RecallFigures chance;
  std::map<int64_t, int64_t> queries_with;
  for (const int64_t right : right_of_query)
    if (right > 0) ++queries_with[right];
  for (const auto& [right, count] : queries_with) {
    chance.queries += count;
    chance.r1 += count * chance_of_recall(right, candidates, 1);
    chance.r5 += count * chance_of_recall(right, candidates, 5);
    chance.r10 += count * chance_of_recall(right, candidates, 10);
  }
  for (double* share : {&chance.r1, &chance.r5, &chance.r10}) *share *= 100.0 / chance.queries;
  // The first rank that at least half of the queries reach.
  int64_t low = 1, high = candidates;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    double reached = 0;
    for (const auto& [right, count] : queries_with)
      reached += count * chance_of_recall(right, candidates, middle);
    if (reached >= 0.5 * chance.queries)
      high = middle;
    else
      low = middle + 1;
  }
  chance.median_rank = static_cast<double>(low);
  return chance;
}

Json directions_json(const RetrievalDirections& directions) {
  Json json = Json::object();
  for (const auto& [name, figures] : directions.named()) json[name] = figures.to_json();
  return json;
}

}  // namespace

double chance_of_recall(int64_t right, int64_t candidates, int64_t top) {
  double all_wrong = 1;  // the product over draws without replacement
  for (int64_t drawn = 0; drawn < std::min(right, candidates) && all_wrong > 0; ++drawn)
    all_wrong *= std::max<double>(0, candidates - top - drawn) / static_cast<double>(candidates - drawn);
  return 1 - all_wrong;
}

RecallFigures recall_figures(const std::vector<int64_t>& ranks) {
  std::vector<int64_t> sorted;
  std::copy_if(ranks.begin(), ranks.end(), std::back_inserter(sorted), [](int64_t rank) { return rank > 0; });
  std::sort(sorted.begin(), sorted.end());
  const double queries = static_cast<double>(sorted.size());
  const auto percent_within = [&](int64_t top) {
    return 100.0 * static_cast<double>(std::upper_bound(sorted.begin(), sorted.end(), top) - sorted.begin()) /
           queries;
  };
  RecallFigures figures{.r1 = percent_within(1), .r5 = percent_within(5), .r10 = percent_within(10)};
  figures.queries = static_cast<int64_t>(sorted.size());
  const size_t half = sorted.size() / 2;
  if (sorted.empty())
    figures.median_rank = std::numeric_limits<double>::quiet_NaN();
  else if (sorted.size() % 2 == 1)
    figures.median_rank = static_cast<double>(sorted[half]);
  else
    figures.median_rank = 0.5 * static_cast<double>(sorted[half - 1] + sorted[half]);
  return figures;
}

RetrievalRanks retrieval_ranks(const RetrievalInput& input, int64_t block) {
  const torch::NoGradGuard no_grad;
  const auto owner_C = input.image_of_caption_C.to(input.text_CD.device(), at::kLong);
  check_input(input, owner_C);
  const int64_t images = input.image_ID.size(0), captions = input.text_CD.size(0);
  auto ahead_C = at::zeros({captions}, owner_C.options());
  auto ahead_I = at::zeros({images}, owner_C.options());
  if (captions == 0) return {.t2i = {}, .i2t = std::vector<int64_t>(static_cast<size_t>(images), 0)};
  const RightScores right = right_scores(input, owner_C, block);
  for (int64_t i = 0; i < images; i += block) {
    const int64_t i_end = std::min(images, i + block);
    const auto image = input.image_ID.slice(0, i, i_end).to(at::kDouble);
    const auto number_I1 = at::arange(i, i_end, owner_C.options()).unsqueeze(1);
    for (int64_t c = 0; c < captions; c += block) {
      const int64_t c_end = std::min(captions, c + block);
      const auto score_IC = at::matmul(image, input.text_CD.slice(0, c, c_end).to(at::kDouble).t());
      const auto wrong_IC = number_I1.ne(owner_C.slice(0, c, c_end).unsqueeze(0));
      // "Not below" rather than "above or equal", so that NaN is against us.
      const auto t2i =
          score_IC.lt(right.t2i_C.slice(0, c, c_end).unsqueeze(0)).logical_not_().logical_and_(wrong_IC);
      const auto i2t =
          score_IC.lt(right.i2t_I.slice(0, i, i_end).unsqueeze(1)).logical_not_().logical_and_(wrong_IC);
      ahead_C.slice(0, c, c_end).add_(t2i.sum(0));
      ahead_I.slice(0, i, i_end).add_(i2t.sum(1));
    }
  }
  const auto has_caption_I = at::zeros({images}, owner_C.options()).index_fill_(0, owner_C, 1);
  return {.t2i = to_vector(ahead_C + 1), .i2t = to_vector((ahead_I + 1) * has_caption_I)};
}

RetrievalReport evaluate_retrieval(const RetrievalInput& input) {
  return evaluate_retrieval(input, retrieval_ranks(input));
}

RetrievalReport evaluate_retrieval(const RetrievalInput& input, const RetrievalRanks& ranks) {
  if (input.text_CD.size(0) == 0)
    fail(ErrorKind::kData, "retrieval needs captions, but the data set has none");
  const std::vector<int64_t> owner = to_vector(input.image_of_caption_C.to(at::kLong));
  RetrievalReport report{.images = input.image_ID.size(0), .captions = input.text_CD.size(0)};
  report.all = {.t2i = recall_figures(ranks.t2i), .i2t = recall_figures(ranks.i2t)};
  std::vector<int64_t> captions_of(ranks.i2t.size(), 0);
  for (const int64_t image : owner) ++captions_of[image];
  report.chance.t2i = mean_chance(std::vector<int64_t>(owner.size(), 1), report.images);
  report.chance.i2t = mean_chance(captions_of, report.captions);

  if (input.group_of_image.empty()) return report;
  FATHOM_CHECK(input.group_of_image.size() == ranks.i2t.size(),
               "[retrieval] expected a group for each of {} images, got {}", ranks.i2t.size(),
               input.group_of_image.size());
  std::map<std::string, RetrievalRanks> apart;
  for (size_t i = 0; i < ranks.i2t.size(); ++i) apart[input.group_of_image[i]].i2t.push_back(ranks.i2t[i]);
  for (size_t c = 0; c < owner.size(); ++c) apart[input.group_of_image[owner[c]]].t2i.push_back(ranks.t2i[c]);
  for (const auto& [name, group] : apart)
    report.groups[name] = {.t2i = recall_figures(group.t2i), .i2t = recall_figures(group.i2t)};
  return report;
}

RetrievalRanks add_sounds(RetrievalReport& report, const RetrievalInput& input,
                          const std::string& part_to_whole, const std::string& whole_to_part) {
  RetrievalRanks ranks = retrieval_ranks(input);
  const RetrievalReport found = evaluate_retrieval(input, ranks);
  const auto add = [&](RetrievalDirections& to, const RetrievalDirections& from) {
    to.sound[part_to_whole] = from.t2i;
    to.sound[whole_to_part] = from.i2t;
  };
  add(report.all, found.all);
  add(report.chance, found.chance);
  for (auto& [name, figures] : report.groups)
    if (const auto group = found.groups.find(name); group != found.groups.end()) add(figures, group->second);
  return ranks;
}

std::vector<std::pair<std::string, RecallFigures>> RetrievalDirections::named() const {
  std::vector<std::pair<std::string, RecallFigures>> all{{"t2i", t2i}, {"i2t", i2t}};
  all.insert(all.end(), sound.begin(), sound.end());
  return all;
}

Json RecallFigures::to_json() const {
  return Json::Object{{"r1", r1}, {"r5", r5}, {"r10", r10}, {"median_rank", median_rank}};
}

Json RetrievalReport::to_json() const {
  Json json = Json::Object{{"task", "retrieval"}};
  for (const auto& [name, figures] : all.named()) json[name] = figures.to_json();
  json["images"] = images;
  json["captions"] = captions;
  if (sounds > 0) json["sounds"] = sounds;
  json["chance"] = directions_json(chance);
  for (const auto& [name, figures] : groups) json["groups"][name] = directions_json(figures);
  if (rerank > 0) {
    json["rerank"] = rerank;
    json["global"] = directions_json(global);
  }
  if (density) json["density"] = *density;
  return json;
}

}  // namespace fathom
