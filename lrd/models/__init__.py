"""Models: loading them, their log-probabilities, adapters, the policy, the memory they take."""
