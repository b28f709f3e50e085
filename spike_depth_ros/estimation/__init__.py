"""Events -> depth frames: the engines that run a network, and the estimator around them."""
