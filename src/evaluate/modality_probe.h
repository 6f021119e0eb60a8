// How well pictures can be told from texts in the space that they share.
#pragma once

#include "evaluate/classification.h"
#include "evaluate/retrieval.h"

namespace fathom {

/// A linear probe (evaluate/classification.h) on the embeddings of pictures and of one caption of each, the
/// first, second, … in turn, since a picture's captions may be of different kinds: it learns from the
/// pictures of even number and is measured on the others. Pictures without captions are left out. Errors
/// (kData) as `linear_probe`.
ClassificationReport modality_probe(const RetrievalInput& input);

}  // namespace fathom
