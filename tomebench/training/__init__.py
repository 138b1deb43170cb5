"""Training of what some methods need: the predictors of DynamicViT."""
