#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "report/html.h"
#include "report/plots.h"
#include "report/run_report.h"
#include "temporary_folder.h"

namespace fathom::report_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kHostile = "<script>alert('x')</script>\" onload=\"y&amp; \xFF\x01";

TEST(Html, EscapesEverythingFromOutside) {
  EXPECT_EQ(escape_html(kHostile),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;y&amp;amp; \uFFFD");
  HtmlWriter page;
  page.open("p", {{"title", kHostile}}).text(kHostile);
  const std::string html = page.finish();
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("\" onload")));
  EXPECT_THAT(html, HasSubstr("</p>"));
}

TEST(Html, Base64IsThatOfRfc4648) {
  EXPECT_EQ(encode_base64(""), "");
  EXPECT_EQ(encode_base64("f"), "Zg==");
  EXPECT_EQ(encode_base64("fo"), "Zm8=");
  EXPECT_EQ(encode_base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(encode_base64("\xFF\xFE\xFD"), "//79");
}

TEST(Plots, TicksAreRoundAndCover) {
  EXPECT_THAT(tick_values(0, 10), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(tick_values(0, 2347), ElementsAre(0, 500, 1000, 1500, 2000, 2500));
  const auto constant = tick_values(3, 3);
  EXPECT_LT(constant.front(), 3);
  EXPECT_GT(constant.back(), 3);
  EXPECT_EQ(format_tick(20000), "20k");
  EXPECT_EQ(format_tick(0.003), "0.003");
}

/// The numbers of a path "M1.0 2.0L3.0 4.0".
std::vector<double> path_numbers(const std::string& svg) {
  std::smatch path;
  EXPECT_TRUE(std::regex_search(svg, path, std::regex("class=\"line c0\" d=\"([^\"]*)\"")));
  std::vector<double> numbers;
  const std::string text = path[1];
  const std::regex number("-?[0-9.]+");
  for (std::sregex_iterator i(text.begin(), text.end(), number), end; i != end; ++i)
    numbers.push_back(std::stod(i->str()));
  return numbers;
}

TEST(Plots, PutPointsWhereTheirValuesAre) {
  // x from 0 to 100 lies on 56…544, y from 0 to 10 on 258…44.
  const std::string svg = draw_plot({.title = "t", .series = {{"s", {{0, 0}, {50, 5}, {100, 10}}}}});
  EXPECT_THAT(path_numbers(svg), ElementsAre(56, 258, 300, 151, 544, 44));
  EXPECT_THAT(svg, HasSubstr(">10</text>"));
}

TEST(Plots, LogarithmsMakeDecadesEqual) {
  const auto numbers = path_numbers(
      draw_plot({.title = "t", .series = {{"s", {{0, 0.01}, {1, 0.1}, {2, 1}}}}, .log_y = true}));
  EXPECT_NEAR(numbers[1] - numbers[3], numbers[3] - numbers[5], 0.11);
}

TEST(Plots, LeaveOutWhatIsNoNumber) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(draw_plot({.title = "t", .series = {{"s", {{0, nan}}}}}), "");
  EXPECT_THAT(draw_plot({.title = "t", .series = {{"s", {{0, 1}, {1, nan}, {2, 2}}}}}),
              Not(HasSubstr("nan")));
  EXPECT_THAT(draw_plot({.title = kHostile, .series = {{kHostile, {{0, 1}, {1, 1}}}}}),
              Not(HasSubstr("<script")));
}

TEST(Plots, ThinningKeepsTheExtremes) {
  std::vector<PlotPoint> points;
  for (int i = 0; i < 10000; ++i) points.push_back({static_cast<double>(i), i == 7777 ? 100.0 : std::sin(i)});
  const auto thin = thin_points(points, 200);
  EXPECT_LE(thin.size(), 200u);
  EXPECT_TRUE(
      std::any_of(thin.begin(), thin.end(), [](const PlotPoint& p) { return p.x == 7777 && p.y == 100; }));
  EXPECT_TRUE(
      std::is_sorted(thin.begin(), thin.end(), [](const auto& a, const auto& b) { return a.x < b.x; }));
}

TEST(RunHistory, ReadsLinesAndLeavesOutATornOne) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "log.jsonl",
                        "{\"step\":10,\"loss\":3.5,\"mfu\":null}\n"
                        "{\"step\":10,\"evaluation\":{\"t2i_r1\":2.5}}\n"
                        "{\"step\":20,\"loss\":2.5}\n{\"step\":30,\"lo");
  const RunHistory history = RunHistory::read(folder / "log.jsonl");
  ASSERT_EQ(history.training.at("loss").size(), 2u);
  EXPECT_EQ(history.training.at("loss")[1].x, 20);
  EXPECT_EQ(history.training.at("loss")[1].y, 2.5);
  EXPECT_EQ(history.training.count("mfu"), 0u);
  EXPECT_EQ(history.evaluation.at("t2i_r1")[0].y, 2.5);
  const auto refusal = [&](const std::string& lines) -> std::string {
    write_file_atomically(folder / "broken.jsonl", lines);
    try {
      RunHistory::read(folder / "broken.jsonl");
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal("{\"step\":1}\nnothing\n"), HasSubstr("broken.jsonl:2: column 2: not valid JSON"));
  for (const char* line : {"[1]\n", "{}\n", "{\"step\":\"1\"}\n"})
    EXPECT_THAT(refusal(line), HasSubstr("broken.jsonl:1: expected an object with a number as its \"step\""));
  EXPECT_EQ(refusal("{\"step\":1,\"evaluation\":3}\n"), "");
}

RunReportContent hostile_content() {
  RunReportContent content{.title = kHostile, .subtitle = kHostile, .recipe = kHostile};
  content.history.training["loss"] = {{1, 3.25}, {2, 2.125}};
  content.retrieval = RetrievalReport{.images = 10, .captions = 50};
  content.retrieval->all.t2i = {.r1 = 12.34, .r5 = 45.6, .r10 = 78.9, .median_rank = 6, .queries = 50};
  content.retrieval->groups[kHostile] = {};
  const ExhibitHit right{.picture = "data:image/jpeg;base64,QUJD", .caption = kHostile, .right = true};
  content.text_to_image = {{.query = kHostile, .rank = 1, .hits = {right}}};
  content.image_to_text = {{.picture = "data:image/jpeg;base64,QUJD", .rank = 3, .hits = {right}}};
  content.samples = {{kHostile, kHostile}};
  content.model_card = {{kHostile, kHostile}};
  content.data_card = {{"a", "b"}};
  return content;
}

TEST(RunReport, IsSelfContainedAndEscaped) {
  const std::string page = render_run_report(hostile_content());
  EXPECT_THAT(page, Not(HasSubstr("alert('x')")));
  EXPECT_THAT(page, Not(HasSubstr("\" onload=\"y")));
  // One script, of our own; nothing is fetched.
  EXPECT_EQ(page.find("<script"), page.rfind("<script"));
  const std::regex link("(src|href)=\"(?!data:)");
  EXPECT_FALSE(std::regex_search(page, link));
  EXPECT_THAT(page, Not(HasSubstr("@import")));
  for (const char* text :
       {"12.34", "45.60", "78.90", "prefers-color-scheme", "class=\"right\"", "rank 3", "<svg"})
    EXPECT_THAT(page, HasSubstr(text));
}

TEST(RunReport, ShowsSeveralTextsEachAndTogether) {
  LanguageReports reports;
  reports.files[kHostile] = {.nats = 800, .tokens = 400, .bytes = 1000};
  const std::string one = render_run_report({.title = "one", .language = reports});
  EXPECT_THAT(one, HasSubstr("<b>1.154</b>"));  // bits per byte: 0.8 ÷ ln 2
  EXPECT_THAT(one, Not(HasSubstr("<table")));
  reports.files["de/val.txt"] = {.nats = 400, .tokens = 100, .bytes = 1000};
  const std::string page = render_run_report({.title = "two", .language = reports});
  EXPECT_THAT(page, HasSubstr("<b>0.866</b>"));
  EXPECT_THAT(page, Not(HasSubstr("alert('x')")));
  for (const char* text : {"de/val.txt", "<td>1.1542</td>", "<td>0.5771</td>", "<td>54.60</td>",
                           "<td>together</td>", "<td>0.8656</td>", "<td>2000</td>"})
    EXPECT_THAT(page, HasSubstr(text));
}

TEST(RunReport, LeavesOutWhatIsNotThere) {
  const std::string page = render_run_report({.title = "empty"});
  for (const char* text : {"<svg class", "<img", "<table", "nan"}) EXPECT_THAT(page, Not(HasSubstr(text)));
}

TEST(RunReport, FlattensRecords) {
  const Json record = parse_json(R"({"a":{"b":1,"c":"x"},"d":null,"e":[1,2]})", "test");
  const CardFacts facts = flatten_facts(record);
  EXPECT_THAT(facts, ElementsAre(std::pair<std::string, std::string>("a.b", "1"),
                                 std::pair<std::string, std::string>("a.c", "x"),
                                 std::pair<std::string, std::string>("e", "[1,2]")));
}

}  // namespace
}  // namespace fathom::report_test
