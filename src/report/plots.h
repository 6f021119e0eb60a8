// Line charts as inline SVG, coloured by the page's style sheet.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fathom {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

struct PlotSeries {
  std::string name;
  std::vector<PlotPoint> points;  ///< in rising x; points that are not finite are left out
};

struct LinePlot {
  std::string title;
  std::string x_label = "step";
  std::vector<PlotSeries> series;  ///< at most 6 have colours of their own
  bool log_y = false;              ///< where the values are positive and span a decade
  bool from_zero = false;          ///< the y axis begins at 0
};

/// Round numbers (1, 2 or 5 × a power of ten) that cover [low, high] with about `count` steps.
std::vector<double> tick_values(double low, double high, int64_t count = 5);
/// A tick in few characters: "20k", "0.003", "1e-05".
std::string format_tick(double value);

/// At most `limit` points of the same shape: the extremes of each of limit ÷ 2 stretches.
std::vector<PlotPoint> thin_points(const std::vector<PlotPoint>& points, int64_t limit);

/// An <svg> of 560 × 300 units with title, axes, ticks, lines and legend; its data-points attribute carries
/// what the page's script shows on hover. Empty when there is nothing to draw.
std::string draw_plot(const LinePlot& plot);

}  // namespace fathom
