// Examples for a report: queries with what the model found for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evaluate/retrieval_data.h"

namespace fathom {

/// A picture with words, right or wrong.
struct ExhibitHit {
  std::string picture;  ///< data URI of a JPEG thumbnail
  std::string caption;
  bool right = false;
  double score = 0;
};

struct Exhibit {
  std::string query;    ///< the words; empty when a picture asks
  std::string picture;  ///< the picture; empty when words ask
  int64_t rank = 0;     ///< of the right answer, ties against us
  std::vector<ExhibitHit> hits;
};

struct ExhibitOptions {
  int64_t count = 12;
  int64_t top = 5;
  int64_t thumbnail_pixels = 144;  ///< longer side
  int64_t seed = 0;                ///< draws the queries, without regard to how well they are answered
};

/// A data set whose retrieval has been measured.
struct MeasuredRetrieval {
  const RetrievalData& data;
  const RetrievalInput& embeddings;
  const RetrievalRanks& ranks;
};

/// Words that find pictures.
std::vector<Exhibit> exhibit_text_to_image(const MeasuredRetrieval& measured,
                                           const ExhibitOptions& options = {});
/// Pictures that find words.
std::vector<Exhibit> exhibit_image_to_text(const MeasuredRetrieval& measured,
                                           const ExhibitOptions& options = {});

/// `count` of [0, size), or all there are, drawn by the seed.
std::vector<int64_t> draw_examples(int64_t size, int64_t count, uint64_t seed);

/// "data:image/jpeg;base64,…" of the image at `path`, scaled down. Errors (kData) name the file.
std::string thumbnail_uri(const std::string& path, int64_t longer_side);

}  // namespace fathom
