"""C2LIP: phrases of captions against images, and against the patches that they attend to (Pham et al., CVPR 2026)."""
