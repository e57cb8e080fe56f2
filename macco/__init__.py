"""macco: masked compositional concept modelling for CLIP."""
