"""The reduction methods, one in a file. How to add one stands above :data:`tomebench.reduction.registry.METHODS`."""
