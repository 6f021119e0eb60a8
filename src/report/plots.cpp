#include "report/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/json.h"
#include "report/html.h"

namespace fathom {
namespace {

constexpr double kWidth = 560, kHeight = 300;
constexpr double kLeft = 56, kRight = 544, kTop = 44, kBottom = 258;
constexpr int64_t kMaxPoints = 400;

bool is_finite(const PlotPoint& point) {
  return std::isfinite(point.x) && std::isfinite(point.y);
}

/// One axis: data to picture coordinates.
struct Axis {
  double low = 0, high = 1;
  double start = 0, end = 1;
  bool logarithmic = false;

  double place(double value) const {
    const double share = logarithmic
                             ? (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low))
                             : (value - low) / (high - low);
    return start + share * (end - start);
  }
  std::vector<double> ticks() const {
    if (!logarithmic) return tick_values(low, high);
    std::vector<double> ticks;
    const auto decades = std::log10(high / low);
    for (int power = static_cast<int>(std::floor(std::log10(low))); power <= std::ceil(std::log10(high));
         ++power)
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double tick = digit * std::pow(10.0, power);
        if (tick >= low * 0.999 && tick <= high * 1.001 && (digit == 1.0 || decades < 3))
          ticks.push_back(tick);
      }
    return ticks;
  }
};

struct Axes {
  Axis x{.start = kLeft, .end = kRight};
  Axis y{.start = kBottom, .end = kTop};
};

/// Widens a range without extent, so that a constant is drawn in the middle.
void widen(double& low, double& high) {
  if (high > low) return;
  const double margin = low == 0 ? 1 : std::abs(low) * 0.1;
  low -= margin;
  high += margin;
}

Axes fit_axes(const LinePlot& plot) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Axes axes;
  axes.x.low = axes.y.low = kInfinity;
  axes.x.high = axes.y.high = -kInfinity;
  for (const PlotSeries& series : plot.series)
    for (const PlotPoint& point : series.points) {
      axes.x.low = std::min(axes.x.low, point.x);
      axes.x.high = std::max(axes.x.high, point.x);
      axes.y.low = std::min(axes.y.low, point.y);
      axes.y.high = std::max(axes.y.high, point.y);
    }
  axes.y.logarithmic = plot.log_y && axes.y.low > 0 && axes.y.high >= 10 * axes.y.low;
  if (plot.from_zero) axes.y.low = std::min(0.0, axes.y.low);
  widen(axes.x.low, axes.x.high);
  widen(axes.y.low, axes.y.high);
  if (!axes.y.logarithmic) {
    const std::vector<double> ticks = tick_values(axes.y.low, axes.y.high);
    axes.y.low = std::min(axes.y.low, ticks.front());
    axes.y.high = std::max(axes.y.high, ticks.back());
  }
  return axes;
}

std::string draw_axes(const LinePlot& plot, const Axes& axes) {
  std::string svg;
  for (const double tick : axes.y.ticks()) {
    const double y = axes.y.place(tick);
    svg +=
        fmt::format(R"(<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>)", kLeft, y, kRight, y);
    svg += fmt::format(R"(<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>)", kLeft - 8,
                       y + 4, format_tick(tick));
  }
  for (const double tick : axes.x.ticks()) {
    if (tick < axes.x.low || tick > axes.x.high) continue;
    svg += fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                       axes.x.place(tick), kBottom + 18, format_tick(tick));
  }
  svg +=
      fmt::format(R"(<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>)", kLeft, kBottom, kRight, kBottom);
  svg += fmt::format(R"(<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>)", kRight, kBottom + 36,
                     escape_html(plot.x_label));
  return svg;
}

std::string draw_line(const std::vector<PlotPoint>& points, const Axes& axes, size_t colour) {
  if (points.size() == 1)
    return fmt::format(R"(<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>)", colour,
                       axes.x.place(points[0].x), axes.y.place(points[0].y));
  std::string path;
  for (const PlotPoint& point : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", axes.x.place(point.x),
                        axes.y.place(point.y));
  return fmt::format(R"(<path class="line c{}" d="{}"/>)", colour, path);
}

std::string draw_legend(const LinePlot& plot) {
  if (plot.series.size() < 2) return "";
  std::string svg;
  double x = kRight;
  for (size_t i = plot.series.size(); i-- > 0;) {
    const std::string& name = plot.series[i].name;
    x -= 7.5 * static_cast<double>(name.size()) + 36;
    svg +=
        fmt::format(R"(<line class="line c{}" x1="{:.0f}" y1="20" x2="{:.0f}" y2="20"/>)", i % 6, x, x + 14);
    svg += fmt::format(R"(<text class="key" x="{:.0f}" y="24">{}</text>)", x + 19, escape_html(name));
  }
  return svg;
}

/// [[x place, y place, x, y, name], …] for the page's script.
std::string hover_points(const LinePlot& plot, const Axes& axes) {
  Json places = Json::array();
  for (const PlotSeries& series : plot.series)
    for (const PlotPoint& point : series.points)
      places.push_back(Json::Array{
          std::round(axes.x.place(point.x) * 10) / 10, std::round(axes.y.place(point.y) * 10) / 10,
          fmt::format("{} {:g} · {} {:.4g}", plot.x_label, point.x, series.name, point.y)});
  return places.dump();
}

}  // namespace

std::vector<double> tick_values(double low, double high, int64_t count) {
  widen(low, high);
  const double rough = (high - low) / static_cast<double>(count);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = power;
  for (const double digit : {1.0, 2.0, 5.0, 10.0})
    if (digit * power >= rough * 0.999) {
      step = digit * power;
      break;
    }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string format_tick(double value) {
  const double size = std::abs(value);
  if (size >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:.6g}", size < 1e-12 ? 0.0 : value);
}

std::vector<PlotPoint> thin_points(const std::vector<PlotPoint>& points, int64_t limit) {
  const auto count = static_cast<int64_t>(points.size());
  if (count <= limit) return points;
  const int64_t stretches = limit / 2;
  const auto lower = [](const PlotPoint& a, const PlotPoint& b) { return a.y < b.y; };
  std::vector<PlotPoint> kept;
  for (int64_t s = 0; s < stretches; ++s) {
    const auto first = points.begin() + s * count / stretches,
               last = points.begin() + (s + 1) * count / stretches;
    auto [least, greatest] = std::minmax_element(first, last, lower);
    if (least->x > greatest->x) std::swap(least, greatest);
    kept.push_back(*least);
    if (greatest != least) kept.push_back(*greatest);
  }
  return kept;
}

std::string draw_plot(const LinePlot& given) {
  LinePlot plot = given;
  for (PlotSeries& series : plot.series) {
    std::erase_if(series.points, [](const PlotPoint& point) { return !is_finite(point); });
    series.points = thin_points(series.points, kMaxPoints);
  }
  std::erase_if(plot.series, [](const PlotSeries& series) { return series.points.empty(); });
  if (plot.series.empty()) return "";
  const Axes axes = fit_axes(plot);
  std::string svg =
      fmt::format(R"(<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}" data-points="{}">)",
                  kWidth, kHeight, escape_html(plot.title), escape_html(hover_points(plot, axes)));
  svg += fmt::format(R"(<text class="title" x="0" y="24">{}</text>)", escape_html(plot.title));
  svg += draw_axes(plot, axes);
  for (size_t i = 0; i < plot.series.size(); ++i) svg += draw_line(plot.series[i].points, axes, i % 6);
  return svg + draw_legend(plot) + "</svg>\n";
}

}  // namespace fathom
