#include "report/html.h"

#include <cstdint>

#include "base/utf8_stream.h"

namespace fathom {

std::string escape_html(std::string_view text) {
  Utf8Stream stream;
  std::string clean = stream.push(text);
  clean += stream.finish();
  std::string escaped;
  escaped.reserve(clean.size());
  for (const char c : clean) {
    const bool is_control = (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F;
    if (is_control) continue;
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

void HtmlWriter::begin(std::string_view element, const Attributes& attributes) {
  page_.append("<").append(element);
  for (const auto& [name, value] : attributes)
    page_.append(" ").append(name).append("=\"").append(escape_html(value)).append("\"");
  page_ += '>';
}

HtmlWriter& HtmlWriter::open(std::string_view element, const Attributes& attributes) {
  begin(element, attributes);
  open_.emplace_back(element);
  return *this;
}

HtmlWriter& HtmlWriter::close() {
  page_.append("</").append(open_.back()).append(">");
  open_.pop_back();
  return *this;
}

HtmlWriter& HtmlWriter::text(std::string_view text) {
  page_ += escape_html(text);
  return *this;
}

HtmlWriter& HtmlWriter::element(std::string_view element, std::string_view content,
                                const Attributes& attributes) {
  return open(element, attributes).text(content).close();
}

HtmlWriter& HtmlWriter::empty(std::string_view element, const Attributes& attributes) {
  begin(element, attributes);
  return *this;
}

HtmlWriter& HtmlWriter::raw(std::string_view markup) {
  page_ += markup;
  return *this;
}

std::string HtmlWriter::finish() {
  while (!open_.empty()) close();
  return std::move(page_);
}

std::string encode_base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string encoded;
  encoded.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j)
      encoded += i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return encoded;
}

}  // namespace fathom
