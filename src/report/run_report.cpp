#include "report/run_report.h"

#include <fmt/format.h>

#include "base/version.h"
#include "report/html.h"
#include "report/page_style.h"

namespace fathom {
namespace {

using RowAttributes = HtmlWriter::Attributes;

void write_tile(HtmlWriter& page, const std::string& value, const std::string& label,
                const std::string& note = "") {
  page.open("div", {{"class", "tile"}}).element("b", value).element("span", label);
  if (!note.empty()) page.element("span", note, {{"class", "aside"}});
  page.close();
}

void write_recall_tile(HtmlWriter& page, const std::string& label, double recall, double chance) {
  write_tile(page, fmt::format("{:.1f} %", recall), label, fmt::format("chance {:.2f} %", chance));
}

void write_tiles(HtmlWriter& page, const RunReportContent& content) {
  page.open("div", {{"class", "tiles"}});
  if (const auto& report = content.retrieval) {
    const RetrievalDirections &found = report->all, &chance = report->chance;
    write_recall_tile(page, "text → image: first hit right", found.t2i.r1, chance.t2i.r1);
    write_recall_tile(page, "text → image: in the first 10", found.t2i.r10, chance.t2i.r10);
    write_recall_tile(page, "image → text: first hit right", found.i2t.r1, chance.i2t.r1);
    write_recall_tile(page, "image → text: in the first 10", found.i2t.r10, chance.i2t.r10);
  }
  if (content.answers && content.answers->captions.captions > 0)
    write_tile(page, fmt::format("{:.3f}", content.answers->captions.mean_nats()), "nats a token of captions",
               fmt::format("of {} captions", content.answers->captions.captions));
  if (content.answers) {
    write_tile(page, fmt::format("{:.1f} %", content.answers->all.accuracy()), "right answers",
               fmt::format("of {} questions", content.answers->all.count));
    if (content.answers->blind.count > 0)
      write_tile(page, fmt::format("{:.1f} %", content.answers->blind.accuracy()), "right without seeing",
                 "every picture grey");
  }
  if (content.classification)
    write_tile(page, fmt::format("{:.2f} %", content.classification->accuracy), "right classes",
               fmt::format("always the most frequent: {:.2f} %", content.classification->chance));
  if (content.language) {
    const LanguageReport all = content.language->all();
    write_tile(page, fmt::format("{:.3f}", all.bits_per_byte()), "bits per byte");
    write_tile(page, fmt::format("{:.1f}", all.perplexity()), "perplexity per token");
  }
  if (content.masked_tokens) {
    write_tile(page, fmt::format("{:.3f}", content.masked_tokens->nats_per_token()), "nats a hidden token");
    write_tile(page, fmt::format("{:.2f} %", content.masked_tokens->accuracy()), "hidden tokens foretold",
               fmt::format("of {}", content.masked_tokens->tokens));
  }
  if (const auto loss = content.history.training.find("loss");
      !content.retrieval && loss != content.history.training.end())
    write_tile(page, fmt::format("{:.3f}", loss->second.back().y),
               fmt::format("training loss at step {:g}", loss->second.back().x));
  page.close();
}

/// A plot of curves that belong together; `keys` are pairs of a log key and the name shown.
struct PlotPlan {
  std::string title;
  std::vector<std::pair<std::string, std::string>> keys;
  bool log_y = false;
  bool from_zero = true;
  bool parts = true;  ///< also "KEY/PART", each a curve
};

LinePlot make_plot(const PlotPlan& plan, const std::map<std::string, std::vector<PlotPoint>>& curves) {
  LinePlot plot{.title = plan.title, .log_y = plan.log_y, .from_zero = plan.from_zero};
  for (const auto& [key, name] : plan.keys) {
    if (const auto curve = curves.find(key); curve != curves.end())
      plot.series.push_back({name, curve->second});
    for (const auto& [part, curve] : curves)  // "bits_per_byte/FILE"
      if (plan.parts && part.starts_with(key + "/"))
        plot.series.push_back({part.substr(key.size() + 1), curve});
  }
  return plot;
}

void write_plots(HtmlWriter& page, const RunHistory& history) {
  const std::vector<PlotPlan> training = {
      {"Training loss", {{"loss", "loss"}}, false, false},
      {"Learning rate", {{"learning_rate", "learning rate"}}},
      {"Gradient norm", {{"gradient_norm", "gradient norm"}}, true, false},
      {"Samples a second", {{"samples_per_second", "samples a second"}}},
      {"Tokens a second", {{"tokens_per_second", "tokens a second"}}},
      {"Questions a second", {{"questions_per_second", "questions a second"}}},
      {"Share of the gated work that is done", {{"density", "all"}}},
      {"Entropy of gates (bits a token)", {{"gate_entropy", ""}}},
      {"Share of time waiting for data", {{"data_wait_share", "data wait"}, {"data_wait", "data wait"}}},
  };
  const std::vector<PlotPlan> evaluation = {
      {"Recall, text → image (percent)", {{"t2i_r1", "R@1"}, {"t2i_r5", "R@5"}, {"t2i_r10", "R@10"}}},
      {"Recall, image → text (percent)", {{"i2t_r1", "R@1"}, {"i2t_r5", "R@5"}, {"i2t_r10", "R@10"}}},
      {"Recall, audio → image (percent)", {{"a2i_r1", "R@1"}, {"a2i_r5", "R@5"}, {"a2i_r10", "R@10"}}},
      {"Recall, audio → text (percent)", {{"a2t_r1", "R@1"}, {"a2t_r5", "R@5"}, {"a2t_r10", "R@10"}}},
      {"Accuracy on held-out data (percent)", {{"accuracy", "all"}}, false, false, /*parts=*/false},
      {"Captions on held-out data (nats a token)", {{"caption_nats", "all"}}, false, false},
      {"Bits per byte on held-out text", {{"bits_per_byte", "all"}}, false, false},
      {"Nats a hidden token of held-out text", {{"masked_nats", "all"}}, false, false},
      {"Hidden tokens foretold (percent)", {{"masked_accuracy", "all"}}, false, false},
      {"Weight of each modality", {{"modality_weight", ""}}},
      {"Loss on held-out data", {{"loss", "loss"}}, false, false},
  };
  std::vector<std::string> drawn;
  for (const PlotPlan& plan : evaluation) drawn.push_back(draw_plot(make_plot(plan, history.evaluation)));
  for (const PlotPlan& plan : training) drawn.push_back(draw_plot(make_plot(plan, history.training)));
  std::erase(drawn, "");
  if (drawn.empty()) return;
  page.element("h2", "Curves").element("p", "Point at a line for its values.", {{"class", "note"}});
  page.open("div", {{"class", "grid"}});
  for (const std::string& svg : drawn) page.open("div", {{"class", "card"}}).raw(svg).close();
  page.close();
}

void write_row(HtmlWriter& page, const std::string& name, const RecallFigures& figures,
               const char* kind = "") {
  page.open("tr", *kind ? RowAttributes{{"class", kind}} : RowAttributes{}).element("td", name);
  for (const double value : {figures.r1, figures.r5, figures.r10})
    page.element("td", fmt::format("{:.2f}", value));
  page.element("td", fmt::format("{:g}", figures.median_rank))
      .element("td", fmt::format("{}", figures.queries))
      .close();
}

/// "t2i" → "text → image".
std::string direction_text(const std::string& direction) {
  const auto modality = [](char letter) {
    return letter == 't' ? "text" : letter == 'i' ? "image" : "audio";
  };
  return fmt::format("{} → {}", modality(direction.front()), modality(direction.back()));
}

void write_retrieval_table(HtmlWriter& page, const RetrievalReport& report) {
  page.element("h2", "Retrieval");
  page.element(
      "p",
      fmt::format("Among {} images{} and {} captions. Percent of queries whose right "
                  "answer is among the first 1, 5 or 10; every caption of an image counts as right, and ties "
                  "count against the model.",
                  report.images, report.sounds > 0 ? fmt::format(", {} sounds", report.sounds) : "",
                  report.captions),
      {{"class", "note"}});
  page.open("div", {{"class", "card table"}}).open("table").open("tr");
  for (const char* name : {"", "R@1", "R@5", "R@10", "median rank", "queries"}) page.element("th", name);
  page.close();
  for (const auto& [name, figures] : report.all.named()) write_row(page, direction_text(name), figures);
  for (const auto& [group, directions] : report.groups)
    for (const auto& [name, figures] : directions.named())
      write_row(page, direction_text(name) + ", " + group, figures);
  for (const auto& [name, figures] : report.chance.named())
    write_row(page, "chance, " + direction_text(name), figures, "chance");
  page.close().close();
}

void write_row(HtmlWriter& page, const std::string& name, const LanguageReport& report) {
  page.open("tr").element("td", name).element("td", fmt::format("{:.4f}", report.bits_per_byte()));
  page.element("td", fmt::format("{:.2f}", report.perplexity()));
  page.element("td", fmt::format("{}", report.tokens)).element("td", fmt::format("{}", report.bytes)).close();
}

/// One text's figures stand in the tiles.
void write_language_table(HtmlWriter& page, const LanguageReports& reports) {
  if (reports.files.size() < 2) return;
  page.element("h2", "Held-out texts").open("div", {{"class", "card table"}}).open("table").open("tr");
  for (const char* name : {"", "bits per byte", "perplexity", "tokens", "bytes"}) page.element("th", name);
  page.close();
  for (const auto& [name, report] : reports.files) write_row(page, name, report);
  write_row(page, "together", reports.all());
  page.close().close();
}

void write_row(HtmlWriter& page, const std::string& name, const AnswerCount& figures, const char* kind = "") {
  page.open("tr", *kind ? RowAttributes{{"class", kind}} : RowAttributes{}).element("td", name);
  page.element("td", fmt::format("{:.2f}", figures.accuracy()))
      .element("td", fmt::format("{}", figures.count))
      .close();
}

void write_row(HtmlWriter& page, const std::string& name, const CaptionFigures& figures,
               const char* kind = "") {
  page.open("tr", *kind ? RowAttributes{{"class", kind}} : RowAttributes{}).element("td", name);
  page.element("td", fmt::format("{:.4f}", figures.mean_nats()))
      .element("td", fmt::format("{}", figures.tokens))
      .element("td", fmt::format("{}", figures.captions))
      .close();
}

void write_captions_table(HtmlWriter& page, const AnswerReport& report) {
  if (report.captions.captions == 0) return;
  page.element("h2", "Captions");
  page.element("p",
               "How probable the data's captions are, each token given those before it: mean negative log "
               "probability, less is better.",
               {{"class", "note"}});
  page.open("div", {{"class", "card table"}}).open("table").open("tr");
  for (const char* name : {"", "nats a token", "tokens", "captions"}) page.element("th", name);
  page.close();
  write_row(page, "all", report.captions);
  if (report.blind_captions.captions > 0)
    write_row(page, "with every picture grey", report.blind_captions, "chance");
  page.close().close();
}

void write_answers_table(HtmlWriter& page, const AnswerReport& report) {
  page.element("h2", "Answers");
  page.element("p",
               "Percent of questions answered as the data says; a list counts when the set is equal, a "
               "caption when it "
               "is one of the picture's.",
               {{"class", "note"}});
  page.open("div", {{"class", "card table"}}).open("table").open("tr");
  for (const char* name : {"", "right", "questions"}) page.element("th", name);
  page.close();
  write_row(page, "all", report.all);
  for (const auto& [name, figures] : report.groups) write_row(page, name, figures);
  if (report.agreement.count > 0) {
    write_row(page, "by the picture alone", report.image_only);
    write_row(page, "by the caption alone", report.caption_only);
    write_row(page, "where these two agree", report.agreement);
  }
  if (report.blind.count > 0) write_row(page, "with every picture grey", report.blind, "chance");
  page.close().close();
  write_captions_table(page, report);
}

void write_lit_picture(HtmlWriter& page, const std::string& picture, const char* caption) {
  if (picture.empty()) return;
  page.open("figure");
  page.empty("img", {{"src", picture}, {"alt", caption}, {"loading", "lazy"}});
  page.element("figcaption", caption).close();
}

void write_asked(HtmlWriter& page, const std::vector<AnswerExhibit>& exhibits) {
  if (exhibits.empty()) return;
  page.element("h2", "Questions and answers");
  page.element(
      "p",
      "Questions drawn at random. Beside the picture, where the model has attention over its regions, the "
      "same lit by it: that of the question's words in the first layers, and that of the memory slots.",
      {{"class", "note"}});
  page.open("div", {{"class", "card"}});
  for (const AnswerExhibit& exhibit : exhibits) {
    page.open("div", {{"class", "query"}}).open("div");
    page.element("span", exhibit.question, {{"class", "words"}});
    const char* expected = exhibit.captioned ? "captions" : "right";
    page.element(
        "span",
        exhibit.right ? exhibit.said : fmt::format("{} ({}: {})", exhibit.said, expected, exhibit.expected),
        {{"class", exhibit.right ? "rank first" : "rank"}});
    if (!exhibit.weights.empty()) page.element("span", exhibit.weights, {{"class", "rank"}});
    page.close().open("div", {{"class", "found"}});
    write_lit_picture(page, exhibit.picture, "the picture");
    write_lit_picture(page, exhibit.reading, "read by the question");
    write_lit_picture(page, exhibit.memory, "kept in memory");
    page.close().close();
  }
  page.close();
}

std::string rank_text(int64_t rank) {
  return rank == 1 ? "right answer first" : fmt::format("right answer at rank {}", rank);
}

void write_rank(HtmlWriter& page, int64_t rank) {
  page.element("span", rank_text(rank), {{"class", rank == 1 ? "rank first" : "rank"}});
}

void write_found_pictures(HtmlWriter& page, const std::vector<Exhibit>& exhibits) {
  if (exhibits.empty()) return;
  page.element("h2", "Words that find pictures");
  page.element(
      "p", "Captions drawn at random, with the nearest pictures from left to right. The right one is framed.",
      {{"class", "note"}});
  page.open("div", {{"class", "card"}});
  for (const Exhibit& exhibit : exhibits) {
    page.open("div", {{"class", "query"}}).open("div").element("span", exhibit.query, {{"class", "words"}});
    write_rank(page, exhibit.rank);
    page.close().open("div", {{"class", "found"}});
    for (const ExhibitHit& hit : exhibit.hits) {
      page.open("figure", {{"class", hit.right ? "right" : "wrong"}});
      page.empty("img", {{"src", hit.picture}, {"alt", hit.caption}, {"loading", "lazy"}});
      page.element("figcaption", hit.caption).close();
    }
    page.close().close();
  }
  page.close();
}

void write_found_words(HtmlWriter& page, const std::vector<Exhibit>& exhibits) {
  if (exhibits.empty()) return;
  page.element("h2", "Pictures that find words");
  page.element("p", "Pictures drawn at random, with the nearest captions. The picture's own are marked.",
               {{"class", "note"}});
  page.open("div", {{"class", "card"}});
  for (const Exhibit& exhibit : exhibits) {
    page.open("div", {{"class", "query asked"}});
    page.empty("img", {{"src", exhibit.picture}, {"alt", "the picture that asks"}, {"loading", "lazy"}});
    page.open("div");
    write_rank(page, exhibit.rank);
    page.open("ol");
    for (const ExhibitHit& hit : exhibit.hits)
      page.element("li", hit.caption, hit.right ? RowAttributes{{"class", "right"}} : RowAttributes{});
    page.close().close().close();
  }
  page.close();
}

void write_samples(HtmlWriter& page, const std::vector<TextSample>& samples) {
  if (samples.empty()) return;
  page.element("h2", "What the model writes");
  page.open("div", {{"class", "card"}});
  for (const TextSample& sample : samples)
    page.open("pre").element("b", sample.prompt).text(sample.answer).close();
  page.close();
}

void write_card(HtmlWriter& page, const std::string& title, const CardFacts& facts) {
  if (facts.empty()) return;
  page.open("div", {{"class", "card"}}).element("h3", title).open("dl");
  for (const auto& [name, value] : facts) page.element("dt", name).element("dd", value);
  page.close().close();
}

void write_cards(HtmlWriter& page, const RunReportContent& content) {
  page.element("h2", "Model and data").open("div", {{"class", "grid"}});
  write_card(page, "Model card", content.model_card);
  write_card(page, "Data card", content.data_card);
  page.close();
  if (content.recipe.empty()) return;
  page.open("details").element("summary", "The whole recipe").element("pre", content.recipe).close();
}

}  // namespace

CardFacts flatten_facts(const Json& values, const std::string& prefix) {
  CardFacts facts;
  for (const auto& [key, value] : values.as_object()) {
    const std::string name = prefix.empty() ? key : prefix + "." + key;
    if (value.is_object()) {
      for (auto& fact : flatten_facts(value, name)) facts.push_back(std::move(fact));
    } else if (!value.is_null()) {
      facts.emplace_back(name, value.is_string() ? value.as_string() : value.dump());
    }
  }
  return facts;
}

std::string render_run_report(const RunReportContent& content) {
  HtmlWriter page;
  page.raw("<!doctype html>\n").open("html", {{"lang", "en"}}).open("head");
  page.empty("meta", {{"charset", "utf-8"}});
  page.empty("meta", {{"name", "viewport"}, {"content", "width=device-width, initial-scale=1"}});
  page.element("title", content.title).open("style").raw(kPageStyle).close().close();
  page.open("body").open("main").open("header");
  page.element("div", "Fathom run report", {{"class", "mark"}}).element("h1", content.title);
  page.element("p", content.subtitle, {{"class", "lead"}}).close();
  write_tiles(page, content);
  if (content.retrieval) write_retrieval_table(page, *content.retrieval);
  if (content.language) write_language_table(page, *content.language);
  if (content.answers) write_answers_table(page, *content.answers);
  write_found_pictures(page, content.text_to_image);
  write_found_words(page, content.image_to_text);
  write_asked(page, content.asked);
  write_sounds(page, content.sounds);
  write_gates(page, content.gates);
  write_samples(page, content.samples);
  write_plots(page, content.history);
  write_cards(page, content);
  page.element("footer", fmt::format("Written by Fathom {} ({}).", version(), commit()));
  page.open("script").raw(kPageScript).close();
  return page.finish();
}

}  // namespace fathom
