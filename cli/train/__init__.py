"""lps-train: train, evaluate, score, and draw what the paper shows."""
