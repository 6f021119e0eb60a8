// What samples are made for.
#pragma once

namespace fathom {

/// Training draws augmentations, captions and masks; evaluation takes the centre view and masks nothing.
enum class Phase { kTrain, kEvaluate };

}  // namespace fathom
