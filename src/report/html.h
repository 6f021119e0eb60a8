// HTML text, built so that nothing from outside is ever markup.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

/// `text` with & < > " ' written as entities, bytes that are not UTF-8 as U+FFFD, and control characters left
/// out.
std::string escape_html(std::string_view text);

/// Appends elements to a page. Text and attribute values are escaped; names of elements and attributes are
/// the programmer's. Elements close themselves in the order they were opened.
class HtmlWriter {
 public:
  using Attributes = std::vector<std::pair<std::string_view, std::string>>;

  HtmlWriter& open(std::string_view element, const Attributes& attributes = {});
  HtmlWriter& close();
  HtmlWriter& text(std::string_view text);
  /// <element …>text</element>
  HtmlWriter& element(std::string_view element, std::string_view text, const Attributes& attributes = {});
  /// An element without content, e.g. img.
  HtmlWriter& empty(std::string_view element, const Attributes& attributes = {});
  /// Trusted markup of our own (style sheet, SVG).
  HtmlWriter& raw(std::string_view markup);

  /// The page; open elements are closed.
  std::string finish();

 private:
  void begin(std::string_view element, const Attributes& attributes);

  std::string page_;
  std::vector<std::string> open_;
};

std::string encode_base64(std::string_view bytes);

}  // namespace fathom
