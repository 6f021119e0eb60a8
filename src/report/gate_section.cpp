#include <fmt/format.h>

#include <algorithm>

#include "report/gate_exhibit.h"

namespace fathom {
namespace {

constexpr int kCell = 7;

/// A row of the grid: a box for each token that the layer computed.
std::string draw_row(const std::vector<bool>& kept) {
  std::string svg =
      fmt::format("<svg class=\"kept\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\">",
                  kCell * static_cast<int>(kept.size()), kCell, kCell * static_cast<int>(kept.size()), kCell);
  for (size_t i = 0; i < kept.size(); ++i)
    if (kept[i])
      svg += fmt::format("<rect x=\"{}\" y=\"0\" width=\"{}\" height=\"{}\"/>", kCell * static_cast<int>(i),
                         kCell - 1, kCell);
  return svg + "</svg>";
}

void write_text(HtmlWriter& page, const GatedText& text) {
  page.open("p", {{"class", "gated"}});
  for (size_t t = 0; t < text.tokens.size(); ++t) {
    const auto layers = std::count_if(text.layers.begin(), text.layers.end(),
                                      [&](const GatedText::Layer& layer) { return layer.kept[t]; });
    const double share = static_cast<double>(layers) / static_cast<double>(text.layers.size());
    page.element("span", text.tokens[t],
                 {{"style", fmt::format("--share: {:.2f}", share)},
                  {"title", fmt::format("{} of {} layers", layers, text.layers.size())}});
  }
  page.close().open("div", {{"class", "table"}}).open("table");
  for (const auto& [name, kept] : text.layers) {
    const auto count = std::count(kept.begin(), kept.end(), true);
    page.open("tr").element("td", fmt::format("layer {}", name));
    page.element(
        "td", fmt::format("{:.0f} %", 100.0 * static_cast<double>(count) / static_cast<double>(kept.size())));
    page.open("td").raw(draw_row(kept)).close().close();
  }
  page.close().close();
}

void write_figure(HtmlWriter& page, const GatedPicture& picture, const std::string& image,
                  const std::string& caption) {
  page.open("figure");
  HtmlWriter::Attributes attributes = {{"src", image}, {"alt", caption}, {"loading", "lazy"}};
  if (picture.is_sound) attributes.emplace_back("class", "spectrogram");
  page.empty("img", attributes).element("figcaption", caption).close();
}

/// Pictures stand side by side, spectrograms below one another.
void open_grid(HtmlWriter& page, const GatedPicture& picture, const char* grid) {
  using Attributes = HtmlWriter::Attributes;
  page.open("div", picture.is_sound ? Attributes{} : Attributes{{"class", grid}});
}

void write_picture(HtmlWriter& page, const GatedPicture& picture) {
  open_grid(page, picture, "found");
  write_figure(page, picture, picture.whole, picture.is_sound ? "the sound" : "the picture");
  write_figure(page, picture, picture.light, picture.title);
  page.close();
  page.open("details").element("summary", fmt::format("{}, layer by layer", picture.title));
  open_grid(page, picture, "layers");
  for (const auto& [name, share, image] : picture.layers)
    write_figure(page, picture, image, fmt::format("{}: {:.0f} %", name, 100 * share));
  page.close().close();
}

}  // namespace

void write_gates(HtmlWriter& page, const std::vector<GateExhibit>& exhibits) {
  if (exhibits.empty()) return;
  const auto has = [&](const auto& part) { return std::any_of(exhibits.begin(), exhibits.end(), part); };
  page.element("h2", "What each layer computes");
  if (has([](const GateExhibit& exhibit) { return exhibit.text.has_value(); }))
    page.element("p", "The darker a token, the more layers computed it; below, a row a layer, a box a token.",
                 {{"class", "note"}});
  if (has([](const GateExhibit& exhibit) { return !exhibit.pictures.empty(); }))
    page.element("p",
                 "The brighter a place of a picture or sound, the more layers computed it. Layers have the "
                 "names that they have in the curves: those of an image encoder are STAGE.BLOCK.PART, where "
                 "attention is computed by windows and mlp by places.",
                 {{"class", "note"}});
  page.open("div", {{"class", "card"}});
  for (const GateExhibit& exhibit : exhibits) {
    page.open("div", {{"class", "query"}});
    if (exhibit.text) write_text(page, *exhibit.text);
    for (const GatedPicture& picture : exhibit.pictures) write_picture(page, picture);
    page.close();
  }
  page.close();
}

}  // namespace fathom
