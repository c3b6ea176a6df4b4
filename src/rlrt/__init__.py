"""rlrt: reinforcement learning with verifiable rewards, and which tokens deserve the credit."""
