// The names of a model's parameters without the memory of its weights.
#pragma once

#include "models/audio/config.h"
#include "models/classifier/config.h"
#include "models/dual_tower/config.h"
#include "models/fusion/config.h"
#include "models/language/config.h"
#include "models/swin/config.h"

namespace fathom {

/// The same components and layers, so parameters of the same names in the same order, but every width,
/// vocabulary and length at its least: what would take terabytes takes a few numbers a layer.
LanguageModelConfig narrowed(LanguageModelConfig config);
SwinConfig narrowed(SwinConfig config);
AudioEncoderConfig narrowed(AudioEncoderConfig config);
DualTowerConfig narrowed(DualTowerConfig config);
FusionConfig narrowed(FusionConfig config);
ClassifierConfig narrowed(ClassifierConfig config);

}  // namespace fathom
