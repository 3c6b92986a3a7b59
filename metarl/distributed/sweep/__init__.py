"""Many runs of one configuration on Ray Tune: grid -> trainable (one run) -> tuner (all runs) -> results."""
