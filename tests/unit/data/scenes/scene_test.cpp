#include "data/scenes/scene.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/file.h"
#include "data/scenes/captions.h"
#include "data/scenes/render.h"
#include "data/scenes/shapes.h"

namespace fathom::scenes::scene_test {
namespace {

constexpr int64_t kSeed = 5;

std::string written(const Scene& scene) {
  std::string text = objects_to_json(scene).dump();
  for (const std::string& caption : make_captions(scene)) text += "\n" + caption;
  return text;
}

TEST(Scene, IsAPureFunctionOfSplitSeedAndIndex) {
  const auto pixels = [](const Scene& scene) { return render(scene, 64).pixels; };
  const Scene scene = make_scene(Split::kTrain, kSeed, 3);
  EXPECT_EQ(written(scene), written(make_scene(Split::kTrain, kSeed, 3)));
  EXPECT_EQ(pixels(scene), pixels(make_scene(Split::kTrain, kSeed, 3)));
  EXPECT_NE(written(scene), written(make_scene(Split::kTrain, kSeed, 4)));
  EXPECT_NE(written(scene), written(make_scene(Split::kTrain, kSeed + 1, 3)));
  EXPECT_NE(written(scene), written(make_scene(Split::kVal, kSeed, 3)));
}

/// Fails when the world changes: raise kScenesVersion then, and this number with it.
TEST(Scene, VersionIsFrozen) {
  std::string text;
  for (int64_t i = 0; i < 50; ++i)
    for (const Split split : {Split::kTrain, Split::kVal}) text += written(make_scene(split, 0, i));
  EXPECT_EQ(kScenesVersion, 1);
  EXPECT_EQ(checksum64(std::as_bytes(std::span(text))), 2967599379235535362u);
}

TEST(Scene, TrainNeverShowsWhatUnseenValScenesHold) {
  std::set<std::pair<int, int>> train;
  std::set<std::pair<int, int>> unseen;
  const auto combinations = [](const Scene& scene, std::set<std::pair<int, int>>& into) {
    for (const Object& object : scene.objects)
      into.emplace(object.value(Attribute::kShape), object.value(Attribute::kColor));
  };
  for (int64_t i = 0; i < 3000; ++i) combinations(make_scene(Split::kTrain, kSeed, i), train);
  for (int64_t i = 0; i < 1000; ++i) {
    const Scene scene = make_scene(Split::kVal, kSeed, i);
    std::set<std::pair<int, int>> here;
    combinations(scene, here);
    const bool any_new =
        std::any_of(here.begin(), here.end(), [&](const auto& pair) { return !train.contains(pair); });
    EXPECT_EQ(scene.unseen, any_new) << i;
    EXPECT_EQ(scene.unseen, i % 2 == 1);
    unseen.insert(here.begin(), here.end());
  }
  EXPECT_EQ(train.size(), 80u);
  EXPECT_EQ(unseen.size(), 90u);
}

TEST(Scene, HoldsOneToFiveObjectsOfEveryKindWithinThePicture) {
  std::map<size_t, int> sizes;
  std::array<std::set<int>, 4> values;
  for (int64_t i = 0; i < 1000; ++i) {
    const Scene scene = make_scene(Split::kTrain, kSeed, i);
    ++sizes[scene.objects.size()];
    for (const Object& object : scene.objects) {
      for (const Attribute attribute : kAttributes)
        values[static_cast<size_t>(attribute)].insert(object.value(attribute));
      EXPECT_GE(std::min(object.x, object.y), object.radius);
      EXPECT_LE(std::max(object.x, object.y), 1 - object.radius);
    }
  }
  for (size_t size = 1; size <= 5; ++size) EXPECT_GT(sizes[size], 40) << size;
  EXPECT_EQ(sizes.size(), 5u);
  for (const Attribute attribute : kAttributes)
    EXPECT_EQ(static_cast<int>(values[static_cast<size_t>(attribute)].size()), num_values(attribute));
}

TEST(Scene, HoldsNoMoreObjectsThanAskedFor) {
  for (int most = 1; most <= kMaxObjects; ++most) {
    std::map<size_t, int> sizes;
    std::map<int, int> planned;
    for (int64_t i = 0; i < 500; ++i) {
      const Scene scene = make_scene(Split::kVal, kSeed, i, most);
      ++sizes[scene.objects.size()];
      ++planned[scene.plan.count];
      const auto held_out = [](const Object& object) {
        return is_held_out(object.value(Attribute::kShape), object.value(Attribute::kColor));
      };
      EXPECT_EQ(std::any_of(scene.objects.begin(), scene.objects.end(), held_out), scene.unseen);
      EXPECT_EQ(scene.unseen, i % 2 == 1);
    }
    EXPECT_EQ(sizes.begin()->first, 1u);
    EXPECT_EQ(sizes.rbegin()->first, static_cast<size_t>(most));
    const int answers = std::min(most, 4) + 1;
    EXPECT_EQ(static_cast<int>(planned.size()), answers) << most;
    for (const auto& [count, times] : planned) EXPECT_NEAR(times, 500.0 / answers, 60) << count;
  }
}

TEST(Scene, OcclusionHappensAndStaysBelowItsBound) {
  double most = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    const auto hidden = occlusion(make_scene(Split::kTrain, kSeed, i));
    most = std::max(most, *std::max_element(hidden.begin(), hidden.end()));
  }
  EXPECT_LE(most, kMaxOcclusion);
  EXPECT_GT(most, 0.2);
}

TEST(Scene, OcclusionOfTwoSquares) {
  Scene scene;
  const auto square = [](double x) {
    return Object{.attributes = {1, 0, 0, 2}, .x = x, .y = 0.5, .radius = 0.2};
  };
  scene.objects = {square(0.4), square(0.4 + 0.76 * 0.2)};
  const auto hidden = occlusion(scene);
  EXPECT_NEAR(hidden[0], 0.5, 0.06);
  EXPECT_EQ(hidden[1], 0);
}

/// Share of the unit square around a shape that it fills.
double area(int shape) {
  constexpr int kPoints = 200;
  int inside = 0;
  for (int i = 0; i < kPoints * kPoints; ++i) {
    const Point p{(i % kPoints + 0.5) * 2 / kPoints - 1, (i / kPoints + 0.5) * 2 / kPoints - 1};
    inside += shape_distance(shape, p) < 0;
  }
  return static_cast<double>(inside) / (kPoints * kPoints);
}

TEST(Shapes, FillWhatGeometrySays) {
  EXPECT_NEAR(area(0), M_PI * 0.88 * 0.88 / 4, 0.005);
  EXPECT_NEAR(area(1), 0.76 * 0.76, 0.01);
  EXPECT_NEAR(area(3), 2 * 0.68 / 4, 0.005);
  EXPECT_NEAR(area(9), M_PI * (0.93 * 0.93 - 0.43 * 0.43) / 4, 0.005);
  for (int shape = 0; shape < static_cast<int>(kShapes.size()); ++shape)
    EXPECT_GT(area(shape), 0.2) << kShapes[shape];
}

TEST(Shapes, FitIntoTheUnitCircle) {
  for (int shape = 0; shape < static_cast<int>(kShapes.size()); ++shape)
    for (double angle = 0; angle < 6.28; angle += 0.01)
      EXPECT_GT(shape_distance(shape, {1.1 * std::cos(angle), 1.1 * std::sin(angle)}), 0) << kShapes[shape];
}

TEST(Render, DrawsTheColourWhereTheObjectIs) {
  Scene scene;
  scene.objects = {{.attributes = {1, 4, 0, 2}, .x = 0.3, .y = 0.7, .radius = 0.2}};
  const Image image = render(scene, 64);
  const auto pixel = [&](int x, int y) { return &image.pixels[static_cast<size_t>(y * 64 + x) * 3]; };
  EXPECT_GT(pixel(19, 45)[2], 150) << "blue within the square";
  EXPECT_LT(pixel(19, 45)[0], 90);
  EXPECT_GT(pixel(50, 10)[0], 150) << "backdrop elsewhere";
}

TEST(Render, EveryValueOfAnAttributeLooksDifferent) {
  for (const Attribute attribute : kAttributes) {
    std::set<std::vector<uint8_t>> pictures;
    for (int value = 0; value < num_values(attribute); ++value) {
      Scene scene;
      scene.objects = {{.attributes = {0, 0, 0, 2}, .x = 0.5, .y = 0.5, .radius = 0.2}};
      scene.objects[0].attributes[static_cast<size_t>(attribute)] = value;
      if (attribute == Attribute::kSize) scene.objects[0].radius = 0.1 + 0.05 * value;
      pictures.insert(render(scene, 64).pixels);
    }
    EXPECT_EQ(static_cast<int>(pictures.size()), num_values(attribute)) << attribute_name(attribute);
  }
}

TEST(Captions, FiveDifferentSentencesThatNameColourAndShape) {
  for (int64_t i = 0; i < 500; ++i) {
    const Scene scene = make_scene(Split::kVal, kSeed, i, 1 + static_cast<int>(i % kMaxObjects));
    const auto captions = make_captions(scene);
    EXPECT_EQ(std::set(captions.begin(), captions.end()).size(), 5u);
    for (const std::string& caption : captions) {
      const bool names_one =
          std::any_of(scene.objects.begin(), scene.objects.end(), [&](const Object& object) {
            return caption.find(value_name(Attribute::kShape, object.value(Attribute::kShape))) !=
                       std::string::npos &&
                   caption.find(value_name(Attribute::kColor, object.value(Attribute::kColor))) !=
                       std::string::npos;
          });
      EXPECT_TRUE(names_one) << caption;
    }
  }
}

TEST(Captions, SeldomFitAnotherScene) {
  std::map<std::string, std::set<int64_t>> scenes_of;
  for (int64_t i = 0; i < 500; ++i)
    for (const std::string& caption : make_captions(make_scene(Split::kVal, kSeed, i)))
      scenes_of[caption].insert(i);
  const auto shared = std::count_if(scenes_of.begin(), scenes_of.end(),
                                    [](const auto& entry) { return entry.second.size() > 1; });
  EXPECT_LT(shared, 5);
}

}  // namespace
}  // namespace fathom::scenes::scene_test
