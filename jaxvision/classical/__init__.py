"""Learning without deep networks: neighbours, linear classifiers, hand-made features, clusters."""
