// The operator library `fathom`: each op's schema stands in its own file.
#include <torch/library.h>

TORCH_LIBRARY(fathom, library) {
  (void)library;
}
